package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"

	"github.com/cachedpg/cachedpg/internal/core"
)

// Explanation says what the driver does with a statement, for people and, by
// its JSON form, for programs. No argument and no literal of the statement is in it.
type Explanation struct {
	// Cacheable says that a Query may be answered from the cache.
	Cacheable bool `json:"cacheable"`

	// Reason is why not: the name of a keying.Reason, under which Stats.Bypasses
	// counts it; "" for what is cacheable. Detail is the name of the relation,
	// function, operator, type or keyword that led to it, if there is one.
	Reason  string `json:"reason"`
	Detail  string `json:"detail"`
	Because string `json:"because"` // the reason in words
	Remedy  string `json:"remedy"`  // what can be done about it

	Kinds []string `json:"kinds"` // of the statements in the text: select, insert, ddl, …
	Key   KeyParts `json:"key"`

	// Reads are the tags that the result depends on. It is empty where the
	// statement itself is why it is not cached.
	Reads []string `json:"reads"`

	// Invalidates are the tags that running the statement invalidates:
	// "everything" where they are not known before it runs, or it changes the schema.
	Invalidates []string `json:"invalidates"`

	// Asks says that more is invalidated than the text tells: PostgreSQL is
	// asked before COMMIT. Asking says it in words.
	Asks   bool   `json:"asks"`
	Asking string `json:"asking"`

	// TTL is the longest life of an entry, written as a time.Duration; "" for
	// what is not cacheable.
	TTL string `json:"ttl"`

	// ByAge names what only that bounds, and no write: the relations of strategy
	// "ttl", or the reason that a ttl in the query or the context excuses.
	ByAge []string `json:"by_age"`

	Policy string `json:"policy"` // the Strategy of its relations; if they differ, the last in Policy's list

	Notes []string `json:"notes"` // what else is worth knowing, a sentence each
}

// KeyParts are what identifies a result in the cache.
type KeyParts struct {
	Text       string            `json:"text"` // normalised: comments out, literals replaced
	Database   string            `json:"database"`
	Role       string            `json:"role"`
	SearchPath []string          `json:"search_path"` // the effective one
	Settings   map[string]string `json:"settings"`    // those that change results
	ExecMode   string            `json:"exec_mode"`   // as default_query_exec_mode names it
	Literals   int               `json:"literals"`    // their number
	Arguments  []string          `json:"arguments"`   // their Go types; "unknown" for those not given

	// Digest is the key in hexadecimal digits; "" for what is not cacheable,
	// and without arguments where the statement has parameters.
	Digest string `json:"digest"`
}

// Explain says what the driver would do with a statement on a connection of
// db, without running it. It takes the same arguments as Query. Without any, for
// a statement with parameters, it speaks of arguments that fit: then rows are
// named by parameter all the same.
//
// What passes by itself is left out: whether the result is in the cache now, a
// store that cannot be reached, a cache that is still warming up, a commit
// that is under way. What does not, another process that writes past the cache, is
// named as far as it has been seen. So is what only the result shows (TooLarge).
//
// It may be called at any time, and asks PostgreSQL for what the driver would
// have to ask. Its errors are those of connecting, and of calling it wrongly.
func Explain(ctx context.Context, db Database, query string, args ...any) (x *Explanation, err error) {
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
		if named, ok := arg.(sql.NamedArg); ok {
			values[i].Name, values[i].Value = named.Name, named.Value
		}
	}
	err = withConn(ctx, db, func(c *core.Conn) error {
		found, err := c.Explain(ctx, query, values)
		if err == nil {
			x = explanationOf(found)
		}
		return err
	})
	return x, err
}

func explanationOf(x *core.Explanation) *Explanation {
	return &Explanation{Cacheable: x.Cacheable, Reason: x.Reason, Detail: x.Detail, Because: x.Because, Remedy: x.Remedy,
		Kinds: x.Kinds, Key: KeyParts(x.Key), Reads: x.Reads, Invalidates: x.Invalidates, Asks: x.Asks, Asking: x.Asking,
		TTL: x.TTL, ByAge: x.ByAge, Policy: x.Policy, Notes: x.Notes}
}

// String returns the explanation for people, a few lines with a label each and
// a line break at the end. The key's settings are not listed.
func (x *Explanation) String() string {
	var out strings.Builder
	line := func(label string, texts ...string) {
		for _, text := range texts {
			fmt.Fprintf(&out, "%-13s%s\n", label, text)
			label = ""
		}
	}
	if x.Cacheable {
		line("cacheable", "yes, for at most "+core.ShortDuration(x.TTL))
		line("by age only", x.ByAge...)
		line("key", x.Key.Text, x.Key.words())
	} else {
		line("cacheable", "no")
		line("reason", core.Naming(x.Reason, x.Detail)+": "+x.Because)
		line("remedy", x.Remedy)
	}
	line("reads", x.Reads...)
	line("invalidates", orNothing(x.Invalidates, x.Asks)...)
	if x.Asks {
		line("asks", x.Asking)
	}
	line("notes", x.Notes...)
	return out.String()
}

// words are the parts beside the text.
func (k *KeyParts) words() string {
	parts := []string{
		"role " + k.Role,
		"search_path " + strings.Join(k.SearchPath, ","),
		"settings that change results",
		"exec mode " + k.ExecMode,
	}
	if k.Literals > 0 {
		parts = append(parts, core.Count(k.Literals, "literal"))
	}
	switch n := len(k.Arguments); {
	case n > 0 && k.Arguments[0] == core.UnknownType:
		parts = append(parts, core.Count(n, "argument")+", not given")
	case n > 0:
		parts = append(parts, core.Count(n, "argument")+" ("+strings.Join(k.Arguments, ", ")+")")
	}
	if k.Digest != "" {
		parts = append(parts, "digest "+k.Digest[:16]+"…")
	}
	return strings.Join(parts, "; ")
}

func orNothing(tags []string, more bool) []string {
	if len(tags) == 0 && !more {
		return []string{"nothing"}
	}
	return tags
}
