package redact

import (
	"regexp"
	"slices"
	"strings"
)

// What is shown of a statement or of a configuration holds no values: literals and
// arguments are data, and a password is a literal too.

// commands are the words that a statement begins with.
var commands = strings.Fields(`abort alter analyse analyze begin call checkpoint close cluster comment commit copy create deallocate declare delete
	discard do drop end execute explain fetch grant import insert listen load lock merge move notify prepare reassign refresh reindex release
	reset revoke rollback savepoint security select set show start table truncate unlisten update vacuum values with`)

// maxShown is the length in bytes of a text from which on it is shown in part.
const maxShown = 4 << 10

// Text is what stats and Explain show of a text, as it is in the plans' cache.
// Of one that the lexer or the parser does not understand that is its command: it
// may hold values anywhere, such as a password without quotes.
func Text(text string, parsed bool) string {
	raw, unread := strings.CutPrefix(text, "\x00")
	if unread || !parsed {
		return Command(raw)
	}
	if len(text) > maxShown { // between two words
		text = text[:max(0, strings.LastIndexByte(text[:maxShown], ' '))] + " …"
	}
	text = setValue.ReplaceAllString(text, "${1}…")
	return keptInteger.ReplaceAllString(text, "${1}$$int")
}

var (
	// setValue is the value of a setting, which needs no quotes if it looks like a name.
	setValue = regexp.MustCompile(`((?:^|; ?)(?:set|alter [^;]* set|create [^;]* set|reset) (?:(?:session|local) )?[^ ;()]+ (?:to|=) ?)[^;]+`)

	// keptInteger is an integer that is no literal of the normalised text, and
	// too large for the ordinal or the precision that it is kept for.
	keptInteger = regexp.MustCompile(`(^|[ (,])[0-9][0-9_]{2,}\b`)
)

// Command returns the first word of the statement, if it is a command's.
func Command(sql string) string {
	for {
		sql = strings.TrimLeft(sql, " \t\n\r\f\v(;")
		switch {
		case strings.HasPrefix(sql, "--"):
			if i := strings.IndexAny(sql, "\n\r"); i >= 0 {
				sql = sql[i:]
				continue
			}
			return "…"
		case strings.HasPrefix(sql, "/*"):
			if i := strings.Index(sql, "*/"); i >= 0 {
				sql = sql[i+2:]
				continue
			}
			return "…"
		}
		break
	}
	end := strings.IndexFunc(sql, func(r rune) bool { return r|0x20 < 'a' || r|0x20 > 'z' })
	if end < 0 {
		end = len(sql)
	}
	if word := sql[:end]; slices.Contains(commands, strings.ToLower(word)) {
		return word + " …"
	}
	return "…"
}
