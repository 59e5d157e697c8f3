package keying

import (
	"strings"

	"github.com/cachedpg/cachedpg/parser"
)

// leaves reports that the command, which is a part of text, may leave something with the connection that others would
// find there: a setting, a name, a lock, a channel. Sequences (lastval) and what functions of the application do are
// left out, as by a pool.
func leaves(s *parser.Statement, text string) bool {
	switch s.Kind {
	case parser.Set:
		return !s.Local
	case parser.PrepareStatement, parser.Execute, parser.Cursor, parser.Do, parser.Call, parser.Opaque:
		return true
	case parser.Notify:
		return mentions(text, "listen")
	case parser.Maintenance:
		return mentions(text, "load")
	case parser.Discard: // pgx does not notice if its statements go
		return s.Discards == "all"
	}
	if d := s.Defines; d != nil && d.Makes.Name != "" && !d.Derived { // what that stands on is there already
		return true
	}
	for _, f := range s.Functions {
		switch {
		case f.Name.Name == "set_config" && !f.Local:
			return true
		case strings.HasPrefix(f.Name.Name, "pg_advisory_lock"), strings.HasPrefix(f.Name.Name, "pg_try_advisory_lock"), f.Name.Name == "setseed":
			return true
		}
	}
	return false
}

func mentions(text, word string) bool { return strings.Contains(strings.ToLower(text), word) }
