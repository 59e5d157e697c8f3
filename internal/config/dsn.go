package config

import (
	"fmt"
	"net/url"
	"strings"
)

type setting struct{ key, value string }

func isCacheKey(key string) bool { return strings.HasPrefix(key, "cache_") }

// splitURL cuts the cache_* pairs out of the query part and leaves the rest as it is.
func splitURL(dsn string) (string, []setting, error) {
	all, fragment, hasFragment := strings.Cut(dsn, "#")
	base, query, _ := strings.Cut(all, "?")
	var keys []setting
	var rest []string
	for _, pair := range strings.Split(query, "&") {
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(rawKey)
		if err != nil || !isCacheKey(key) {
			rest = append(rest, pair) // pgx says what is wrong with its own
			continue
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil {
			return "", nil, fmt.Errorf("cachedpg: %s: malformed percent encoding", key)
		}
		keys = append(keys, setting{key, value})
	}
	if len(keys) == 0 {
		return dsn, nil, nil
	}
	if left := strings.Join(rest, "&"); left != "" {
		base += "?" + left
	}
	if hasFragment {
		base += "#" + fragment
	}
	return base, keys, nil
}

// splitKeywords cuts the cache_* pairs out of a keyword/value DSN, with
// libpq's rules for quotes and backslashes. What it cannot read it leaves to pgx.
func splitKeywords(dsn string) (string, []setting) {
	const space = " \t\n\r\v\f"
	var keys []setting
	var rest strings.Builder
	for s := dsn; s != ""; {
		trimmed := strings.TrimLeft(s, space)
		eq := strings.IndexByte(trimmed, '=')
		if eq < 0 {
			rest.WriteString(s)
			break
		}
		key := strings.TrimRight(trimmed[:eq], space)
		if i := strings.LastIndexAny(key, space); i >= 0 {
			// A word without a value: a registered name, or pgx's to refuse.
			word := len(s) - len(trimmed) + i + 1
			rest.WriteString(s[:word])
			s = s[word:]
			continue
		}
		after := strings.TrimLeft(trimmed[eq+1:], space)
		value, n, ok := keywordValue(after)
		if !ok {
			rest.WriteString(s)
			break
		}
		consumed := len(s) - len(after) + n
		if isCacheKey(key) {
			keys = append(keys, setting{key, value})
		} else {
			rest.WriteString(s[:consumed])
		}
		s = s[consumed:]
	}
	if len(keys) == 0 {
		return dsn, nil
	}
	return strings.Trim(rest.String(), space), keys
}

// keywordValue reads one value at the start of s and returns how many bytes it took.
func keywordValue(s string) (value string, n int, ok bool) {
	quoted := strings.HasPrefix(s, "'")
	var b strings.Builder
	i := 0
	if quoted {
		i = 1
	}
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case quoted && c == '\'':
			return b.String(), i + 1, true
		case !quoted && strings.IndexByte(" \t\n\r\v\f", c) >= 0:
			return b.String(), i, true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), len(s), !quoted
}
