package pgtest

import (
	"net/url"
	"strings"
)

// withSetting returns dsn with a run-time parameter set, whatever it was before.
func withSetting(dsn, name, value string) string { return withKey(dsn, name, value) }

// withDatabase returns dsn with another database.
func withDatabase(dsn, database string) string {
	u, ok := parseURL(dsn)
	if !ok {
		return withKey(withoutKey(dsn, "database"), "dbname", database)
	}
	query := u.Query()
	query.Del("dbname")
	query.Del("database")
	u.RawQuery = query.Encode()
	u.Path = "/" + database
	return u.String()
}

func withKey(dsn, key, value string) string {
	if u, ok := parseURL(dsn); ok {
		return withParameter(u, key, value)
	}
	// Of two equal keys in a keyword DSN the last one counts.
	return strings.TrimSpace(dsn) + " " + key + "=" + quote(value)
}

func withParameter(u *url.URL, key, value string) string {
	query := u.Query()
	query.Set(key, value)
	u.RawQuery = query.Encode()
	return u.String()
}

// withoutKey takes a key out of a keyword DSN. It is needed only where another
// key would contradict it, as database contradicts dbname.
func withoutKey(dsn, key string) string {
	var kept []string
	for _, field := range fields(dsn) {
		name, _, _ := strings.Cut(field, "=")
		if strings.TrimSpace(name) != key {
			kept = append(kept, field)
		}
	}
	return strings.Join(kept, " ")
}

// fields splits a keyword DSN at the spaces outside quotes.
func fields(dsn string) []string {
	var out []string
	var field strings.Builder
	quoted, escaped := false, false
	for _, r := range dsn {
		switch {
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
		case r == '\'':
			quoted = !quoted
		case (r == ' ' || r == '\t' || r == '\n') && !quoted:
			if field.Len() > 0 {
				out = append(out, field.String())
				field.Reset()
			}
			continue
		}
		field.WriteRune(r)
	}
	if field.Len() > 0 {
		out = append(out, field.String())
	}
	return out
}

func parseURL(dsn string) (*url.URL, bool) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return nil, false
	}
	u, err := url.Parse(dsn)
	return u, err == nil
}

func quote(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}
