package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg"
)

func TestParseConfig(t *testing.T) {
	for _, tc := range []struct {
		name, dsn, rest string
		want            cachedpg.Config
	}{
		{"no cache keys in a URL", "postgres://u:p@h:5/d?sslmode=disable", "postgres://u:p@h:5/d?sslmode=disable", cachedpg.Config{}},
		{"no query part", "postgres://h/d", "postgres://h/d", cachedpg.Config{}},
		{"a URL with keys between others", "postgres://h/d?a=b&cache_ttl=30s&sslmode=disable&cache_memory=2MiB#x",
			"postgres://h/d?a=b&sslmode=disable#x", cachedpg.Config{TTL: 30 * time.Second, Memory: 2 << 20}},
		{"a URL with nothing left", "postgresql://h/d?cache_store=off", "postgresql://h/d", cachedpg.Config{Store: "off"}},
		{"percent encoding", "postgres://h/d?cache_policy=a%3Aoff%2Cs.b%3Acache-aside%3A1h", "postgres://h/d",
			cachedpg.Config{Policies: []cachedpg.Policy{{Relation: "a", Strategy: "off"}, {Relation: "s.b", Strategy: "cache-aside", TTL: time.Hour}}}},
		{"keywords", "host=h cache_ttl=1m dbname=d", "host=h dbname=d", cachedpg.Config{TTL: time.Minute}},
		{"keywords with quotes and blanks", `password = 'a b\' cache_ttl=1s' cache_max_entry = '1 KiB'  user=u`,
			`password = 'a b\' cache_ttl=1s'  user=u`, cachedpg.Config{MaxEntry: 1 << 10}},
		{"empty", "", "", cachedpg.Config{}},
		{"a registered configuration", "registeredConnConfig0", "registeredConnConfig0", cachedpg.Config{}},
		{"a registered configuration with keys", "registeredConnConfig0 cache_store=off", "registeredConnConfig0", cachedpg.Config{Store: "off"}},
		{"what is malformed for pgx stays", "host=h 'x", "host=h 'x", cachedpg.Config{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rest, got, err := cachedpg.ParseConfig(tc.dsn)
			if err != nil {
				t.Fatal(err)
			}
			if rest != tc.rest {
				t.Errorf("left for pgx: got %q, want %q", rest, tc.rest)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestParseConfigNamesWhatIsWrong(t *testing.T) {
	for _, tc := range []struct{ dsn, want string }{
		{"postgres://h/d?cache_tll=1s", "cache_tll: unknown key"},
		{"postgres://h/d?cache_ttl=-1s", "cache_ttl=-1s: must be positive"},
		{"postgres://h/d?cache_ttl=soon", "cache_ttl=soon: not a duration"},
		{"postgres://h/d?cache_ttl=1s&cache_ttl=2s", "cache_ttl: given twice"},
		{"postgres://h/d?cache_memory=64XB", "cache_memory=64XB: not a size"},
		{"postgres://h/d?cache_memory=9999999999GiB", "too large"},
		{"postgres://h/d?cache_memory=1KiB&cache_max_entry=2KiB", "cache_max_entry=2048: larger than cache_memory=1024"},
		{"postgres://h/d?cache_ttl=%zz", "cache_ttl: malformed percent encoding"},
		{"postgres://h/d?cache_store=mongo", "cache_store: unknown store"},
		{"postgres://h/d?cache_store=ftp://u:hunter2@r", "cache_store"},
		{"postgres://h/d?cache_store=redis://u:hunter2@r:port", "cache_store"},
		{"postgres://h/d?cache_admission=none", "cache_admission=none: want auto or all"},
		{"postgres://h/d?cache_consistency=weak", "cache_consistency=weak: want strict or eventual"},
		{"postgres://h/d?cache_on_store_down=panic", "cache_on_store_down=panic: want commit or fail"},
		{"postgres://h/d?cache_encryption=1:AAAA", "cache_encryption: cache_store=memory encrypts nothing"},
		{"postgres://h/d?cache_store=redis://r&cache_encryption=1:hunter2", "cache_encryption"},
		{"postgres://h/d?cache_store=redis://r&cache_encryption=file:/nowhere", "cache_encryption"},
		{"postgres://h/d?cache_store=", "cache_store: must not be empty"},
		{"postgres://h/d?cache_policy=a", "cache_policy=a: want relation:strategy"},
		{"postgres://h/d?cache_policy=a:sometimes", `unknown strategy "sometimes"`},
		{"postgres://h/d?cache_policy=a:off,a:off", "a is named twice"},
		{"postgres://h/d?cache_policy=a:off:1s", "contradicts strategy"},
		{"postgres://h/d?cache_policy=a:cache-aside:0s", "must be positive"},
		{"host=h cache_bogus=1 cache_ttl=x", "cache_bogus: unknown key"},
		{"host=h cache_bogus=1 cache_ttl=x", "cache_ttl=x: not a duration"}, // all problems at once
	} {
		_, _, err := cachedpg.ParseConfig(strings.Replace(tc.dsn, "postgres://h", "postgres://u:hunter2@h", 1))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want one with %q", tc.dsn, err, tc.want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows a password: %v", tc.dsn, err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("postgres://h/d?cache_ttl=1s&x=y") // a URL
	f.Add("host=h cache_ttl='1s' user=u")    // keywords
	f.Add(`a='\`)                            // an escape at the end
	f.Add("cache_ttl")                       // a key alone
	f.Add("postgres://?#?")                  // nothing but separators
	f.Fuzz(func(t *testing.T, dsn string) {
		rest, _, err := cachedpg.ParseConfig(dsn)
		if err != nil {
			return
		}
		// Nothing of ours is left, and what was left goes through unchanged.
		again, config, err := cachedpg.ParseConfig(rest)
		if err != nil || again != rest || !reflect.DeepEqual(config, cachedpg.Config{}) {
			t.Errorf("%q left %q, which gives %q, %+v, %v", dsn, rest, again, config, err)
		}
	})
}
