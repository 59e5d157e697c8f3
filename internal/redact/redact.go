// Package redact takes values out of messages that may hold them: passwords, literals,
// settings. In a malformed text they are found by guessing only, so it lets nothing
// through but what is known to be none.
package redact

import "strings"

// complaints are what pgx says of a DSN, in the order in which the parts stand
// in its message.
var complaints = []string{
	"failed to parse as URL", "failed to parse as keyword/value", "failed to read service", "failed to configure TLS",
	"invalid sslcertmode", "invalid connect_timeout", "could not match", "invalid port", "unknown target_session_attrs value",
	"invalid min_protocol_version", "invalid max_protocol_version", "min_protocol_version cannot be greater than max_protocol_version",
	"unknown channel_binding value", "invalid require_auth", "cannot parse statement_cache_capacity", "cannot parse description_cache_capacity",
	"invalid default_query_exec_mode",

	"invalid keyword/value", "unterminated quoted string", "percent-encoded", "forbidden NUL", "IPv6 host address", "key/value separator",
	"unable to find service", "unable to read CA file", "unable to add CA", "sslmode is invalid", "unable to read sslkey", "unable to decrypt key",
	"unable to find sslpassword", "unable to read cert", "unable to load cert", "outside range", "negative timeout",
}

// DSN is what pgx says of a DSN that it cannot parse, without the DSN, which it quotes.
func DSN(err error) string {
	message := err.Error()
	// What is quoted comes first. If it holds what ends it, more of it is looked
	// through, and only words of ours are found there.
	if _, rest, ok := strings.Cut(message, "`: "); ok {
		message = rest
	}
	var found []string
	for _, c := range complaints {
		if strings.Contains(message, c) {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return "not a DSN of PostgreSQL"
	}
	return strings.Join(found, ": ")
}

// Plain reports that a DSN has no part that may be a secret: no user, no password, and
// nothing but words as Value lets through and names of keys.
func Plain(dsn string) bool {
	lower := strings.ToLower(dsn)
	for _, sign := range []string{"@", "pass", "user", "options", "service", "ssl_key"} {
		if strings.Contains(lower, sign) {
			return false
		}
	}
	for _, word := range strings.FieldsFunc(dsn, func(r rune) bool { return strings.ContainsRune(":/?&= '%_,", r) }) {
		if Value(word) != word {
			return false
		}
	}
	return true
}

// Value returns what a message may say of a setting's value: a short word of small
// letters or a number with its unit, as mistakes in settings are; else an ellipsis.
func Value(value string) string {
	const longest = 12
	digits := strings.TrimLeft(strings.TrimPrefix(value, "-"), "0123456789.")
	number := digits != strings.TrimPrefix(value, "-")
	letters := strings.TrimLeft(digits, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	switch {
	case len(value) > longest || letters != "":
		return "…"
	case number && len(digits) > 3, !number && value != strings.ToLower(value):
		return "…"
	}
	return value
}
