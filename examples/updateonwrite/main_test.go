package main

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/exampletest"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func TestUpdateOnWrite(t *testing.T) {
	exampletest.Run(t, "-database", pgtest.Database(t), "-redis", pgtest.Redis(t))
}
