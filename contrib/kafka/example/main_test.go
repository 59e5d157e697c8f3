package main

import (
	"os"
	"testing"

	"github.com/cachedpg/cachedpg/internal/exampletest"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// The brokers are a fake's, or those of CACHEDPG_TEST_KAFKA. What the program
// says is the same.
func TestTwoRegions(t *testing.T) {
	exampletest.Run(t, "-database", pgtest.Database(t), "-redis-a", redistest.Start(t).URL(), "-redis-b", redistest.Start(t).URL(),
		"-kafka", os.Getenv("CACHEDPG_TEST_KAFKA"))
}
