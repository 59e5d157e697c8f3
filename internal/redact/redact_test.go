package redact

import (
	"errors"
	"testing"
)

func TestOnlyWhatIsKnownToBeNoSecretIsSaidOfADSN(t *testing.T) {
	for message, want := range map[string]string{
		"cannot parse `host=h`: invalid port": "invalid port",
		"cannot parse `postgres://u:a`: s3cret@h`: failed to parse as URL (invalid percent-encoded token)": "failed to parse as URL: percent-encoded",
		"unknown target_session_attrs value: s3cret":                                                       "unknown target_session_attrs value",
		"s3cret": "not a DSN of PostgreSQL",
	} {
		if got := DSN(errors.New(message)); got != want {
			t.Errorf("%s: got %q, want %q", message, got, want)
		}
	}
}

func TestADSNWithWhatMayBeSecretIsNotPlain(t *testing.T) {
	for dsn, want := range map[string]bool{
		"postgres://h:notaport/d": true, "host='h": true, "postgres://h/%zz": true, "default_query_exec_mode=none host=h": true,
		"postgres://u@h/d": false, "host=h password=x": false, "s3cret": false, "postgres://u:s3cret": false, "host=h PASSWORD = 'x'": false, "postgres://h/d?s3cret": false,
	} {
		if got := Plain(dsn); got != want {
			t.Errorf("%s: got %t", dsn, got)
		}
	}
}

func TestOnlyPlainWordsAndNumbersAreQuoted(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "soon": "soon", "-1s": "-1s", "64XB": "64XB", "0": "0", "1.5h": "1.5h", "100ms": "100ms",
		"s3cret": "…", "hunter2": "…", "10mcache_store=redis://:s3cret@h": "…", "S3CRET": "…", "Secret": "…", "a b": "…", "10secret": "…", "averylongsecret": "…",
	} {
		if got := Value(value); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}
