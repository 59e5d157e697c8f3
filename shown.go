package cachedpg

import (
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/internal/redact"
	"github.com/cachedpg/cachedpg/store/redis"
)

// What is shown of a statement or of a configuration holds no values: literals and
// arguments are data, and a password is a literal too.

// commands are the words that a statement begins with.
var commands = strings.Fields(`abort alter analyse analyze begin call checkpoint close cluster comment commit copy create deallocate declare delete
	discard do drop end execute explain fetch grant import insert listen load lock merge move notify prepare reassign refresh reindex release
	reset revoke rollback savepoint security select set show start table truncate unlisten update vacuum values with`)

// maxShown is the length in bytes of a text from which on it is shown in part.
const maxShown = 4 << 10

// shownText is what stats and Explain show of a text, as it is in the plans' cache.
// Of one that the lexer or the parser does not understand that is its command: it
// may hold values anywhere, such as a password without quotes.
func shownText(text string, parsed bool) string {
	raw, unread := strings.CutPrefix(text, "\x00")
	if unread || !parsed {
		return commandOf(raw)
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

// commandOf returns the first word of the statement, if it is a command's.
func commandOf(sql string) string {
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

// String returns the configuration without what may be secret in it: the user and
// the password of a Redis, and the keys.
func (c Config) String() string {
	shown := c.shown()
	return fmt.Sprintf("{Store:%s Consistency:%s Admission:%s OnStoreDown:%s Encryption:%s TTL:%v MaxEntry:%d Memory:%d External:%s Outbox:%s RefillMax:%d QueueMax:%d MaxConns:%d Policies:%+v}",
		shown.Store, shown.Consistency, shown.Admission, shown.OnStoreDown, shown.Encryption, c.TTL, c.MaxEntry, c.Memory, shown.External, shown.Outbox, c.RefillMax, c.QueueMax, c.MaxConns, c.Policies)
}

// GoString returns what %#v prints, without what may be secret.
func (c Config) GoString() string { return "cachedpg.Config" + c.String() }

// LogValue implements slog.LogValuer.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

func (c Config) shown() Config {
	if c.Store != "" && c.Store != storeMemory && c.Store != storeOff {
		c.Store = shownStore(c.Store)
	}
	if c.Encryption != "" {
		c.Encryption = "…"
	}
	for _, value := range []*string{&c.Consistency, &c.Admission, &c.OnStoreDown, &c.External, &c.Outbox} {
		*value = redact.Value(*value)
	}
	return c
}

func shownStore(url string) string {
	target, err := redis.ParseURL(url)
	if err != nil {
		return "…"
	}
	return target.String()
}

// String returns what the connector caches with, without secrets.
func (d *connector) String() string { return "cachedpg.connector" + d.config.String() }

// GoString returns what %#v prints, without secrets.
func (d *connector) GoString() string { return d.String() }

// String returns which write was refused, and not the values in it.
func (l DeadLetter) String() string {
	state := l.SQLState
	if state == "" {
		state = "none"
	}
	return fmt.Sprintf("queued write %s: %s, SQLSTATE %s", l.ID, commandOf(l.SQL), state)
}

// GoString returns what %#v prints.
func (l DeadLetter) GoString() string { return "cachedpg.DeadLetter{" + l.String() + "}" }
