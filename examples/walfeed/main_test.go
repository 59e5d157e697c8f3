package main

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/exampletest"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func TestWALFeed(t *testing.T) {
	t.Run("memory", func(t *testing.T) { exampletest.Run(t, "-database", pgtest.Database(t)) })
	t.Run("redis", func(t *testing.T) { exampletest.Run(t, "-database", pgtest.Database(t), "-redis", pgtest.Redis(t)) })
}
