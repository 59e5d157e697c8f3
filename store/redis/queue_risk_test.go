package redis

import (
	"strings"
	"testing"
)

func TestWhatAQueueRisks(t *testing.T) {
	safe := func(changes ...string) map[string]string {
		settings := map[string]string{"appendonly": "yes", "appendfsync": "always", "maxmemory": "0", "maxmemory-policy": "noeviction", "min-replicas-to-write": "0"}
		for i := 0; i < len(changes); i += 2 {
			settings[changes[i]] = changes[i+1]
		}
		return settings
	}
	tests := []struct {
		name     string
		settings map[string]string
		replicas bool
		want     []string // in this order; none is no risk
	}{
		{"nothing", safe(), false, nil},
		{"a policy without a limit", safe("maxmemory-policy", "allkeys-lru"), false, nil},
		{"only what expires is evicted", safe("maxmemory", "100", "maxmemory-policy", "volatile-lru"), false, nil},
		{"no file", safe("appendonly", "no"), false, []string{"appendonly is off"}},
		{"a second", safe("appendfsync", "everysec"), false, []string{"appendfsync is everysec"}},
		{"eviction", safe("maxmemory", "100", "maxmemory-policy", "allkeys-lfu"), false, []string{"maxmemory-policy is allkeys-lfu"}},
		{"replicas", safe(), true, []string{"it has replicas", "min-replicas-to-write 1"}},
		{"replicas that have to be near", safe("min-replicas-to-write", "1"), true, []string{"it has replicas"}},
		{"several", safe("appendonly", "no", "maxmemory", "100", "maxmemory-policy", "allkeys-lru"), true, []string{"appendonly", "; maxmemory-policy", "; it has replicas"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := riskOf(tt.settings, tt.replicas)
			rest := got
			for _, want := range tt.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Errorf("got %q, want %q in it", got, want)
				}
				rest = after
			}
			if tt.want == nil && got != "" {
				t.Errorf("got %q, want none", got)
			}
		})
	}
}
