package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain is the main function of worker processes too.
func TestMain(m *testing.M) {
	if os.Getenv(taskVariable) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// A run of a few seconds shows that the harness works; what it is for needs
// longer ones.
func TestShortRuns(t *testing.T) {
	needServers(t)
	tests := []struct {
		variant, store, only string
	}{
		{strict, storeRedis, "FLUSHALL|kill anywhere"},
		{strict, storeMemory, "terminated|stop anywhere"},
		{writeThrough, storeRedis, "kill|terminated"},
		{writeThrough, storeMemory, "terminated|stop anywhere"},
		{private, storeMemory, "none"},
	}
	for _, tt := range tests {
		t.Run(tt.variant+" "+tt.store, func(t *testing.T) {
			c := config{duration: 4 * time.Second, seed: 1, variant: tt.variant, store: tt.store, quiet: true, only: regexp.MustCompile(tt.only)}
			if err := c.validate(); err != nil {
				t.Fatal(err)
			}
			good, err := run(t.Context(), c)
			if err != nil || !good {
				t.Errorf("the run is good: %v, %v", good, err)
			}
		})
	}
}

func needServers(t *testing.T) {
	t.Helper()
	initdb, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	_, noPostgres := exec.LookPath("initdb")
	_, noRedis := exec.LookPath("redis-server")
	if (initdb != nil || noPostgres == nil || os.Getenv("CACHEDPG_POSTGRES_BIN") != "") && noRedis == nil {
		return
	}
	const hint = "initdb or redis-server is not installed: run `scripts/services install`"
	if os.Getenv("CACHEDPG_TEST_REQUIRE") == "1" {
		t.Fatal(hint)
	}
	t.Skip(hint)
}

func TestConfig(t *testing.T) {
	tests := []struct {
		name string
		c    config
		good bool
	}{
		{"strict", config{duration: 1, variant: strict, store: storeRedis}, true},
		{"strict in memory", config{duration: 1, variant: strict, store: storeMemory}, true},
		{"writers that refill", config{duration: 1, variant: writeThrough, store: storeRedis}, true},
		{"no time", config{variant: strict, store: storeRedis}, false},
		{"unknown variant", config{duration: 1, variant: "x", store: storeRedis}, false},
		{"unknown store", config{duration: 1, variant: strict, store: "x"}, false},
		{"nothing to be late in", config{duration: 1, variant: postCommit, store: storeMemory}, false},
	}
	for _, tt := range tests {
		if err := tt.c.validate(); (err == nil) != tt.good {
			t.Errorf("%s: got %v, want it good: %v", tt.name, err, tt.good)
		}
	}
}
