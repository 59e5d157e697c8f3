package keying

import (
	"slices"
	"strings"

	"github.com/cachedpg/cachedpg/parser"
)

// Settings are those that change how a value is computed or written, or which
// rows are found; every key stands for a value of each. Others change plans, limits or
// logs only. Custom settings matter to functions that the cache never answers for, but
// for those of extensions whose indexes find more or fewer of the nearest rows. Some settings
// are not known to every server.
var Settings = []string{
	"array_nulls", "backslash_quote", "bytea_output", "client_encoding", "DateStyle",
	"default_text_search_config", "extra_float_digits", "gin_fuzzy_search_limit", "IntervalStyle",
	"lc_monetary", "lc_numeric", "lc_time", "quote_all_identifiers", "restrict_nonsystem_relation_kind",
	"row_security", "session_replication_role", "standard_conforming_strings", "TimeZone", "timezone_abbreviations", "transform_null_equals",
	"xmlbinary", "xmloption",
	"hnsw.ef_search", "hnsw.iterative_scan", "hnsw.max_scan_tuples", "hnsw.scan_mem_multiplier",
	"ivfflat.iterative_scan", "ivfflat.max_probes", "ivfflat.probes",
}

// matters holds, in lower case, the names of Settings and of what else the driver keeps
// track of: what names mean, who asks, how transactions begin, and whether a commit waits
// for the disk. A change of any other setting is a change of nothing.
var matters = set(strings.ToLower(strings.Join(Settings, " ")) +
	" search_path role session_authorization default_transaction_isolation transaction_isolation synchronous_commit")

// limits are the settings after which PostgreSQL ends a statement.
var limits = set("statement_timeout lock_timeout transaction_timeout")

// Setting is a change of settings of the session.
type Setting struct {
	Name    string // of the one that changes, in lower case; "" for all
	Default bool   // to its default, which stands nowhere in the text
	Local   bool   // until the end of the transaction
	Discard bool   // with all else that DISCARD ALL gives up
}

// set: a setting of the session may change; "" stands for any.
func (a *analysis) set(name string) {
	a.plan.Limits = a.plan.Limits || name == "" || limits[name]
	if name != "" && !matters[name] {
		return
	}
	a.plan.Session = true
	a.plan.Durability = a.plan.Durability || name == "" || name == "synchronous_commit"
}

// discard: DISCARD gives up something of the session.
func (a *analysis) discard(what string) {
	switch what {
	case "plans":
		a.plan.Analyses = true
	case "sequences": // which the driver knows nothing of
	case "all":
		a.set("")
		a.astray()
	default:
		a.plan.Session = true
		a.changes(&TemporaryChange{All: true})
	}
}

// setting returns the change that is all that the statement does to the session; nil if the
// text does not tell.
func setting(s *parser.Statement) *Setting {
	switch {
	case s.Kind == parser.Set && s.Default, s.Kind == parser.Set && s.Given && s.SettingName != "":
		return &Setting{Name: s.SettingName, Default: s.Default, Local: s.Local}
	case s.Kind == parser.Discard && s.Discards == "all":
		return &Setting{Default: true, Discard: true}
	case s.Kind != parser.Select || len(s.Functions) != 1 || len(s.Reads)+len(s.Operators)+len(s.Keywords)+len(s.Attributes) > 0 ||
		slices.ContainsFunc(s.Types, func(t parser.Name) bool { return t.Name != "text" }):
		return nil
	}
	f := s.Functions[0]
	if f.Setting == "" || f.Local == f.Lasting {
		return nil
	}
	return &Setting{Name: f.Setting, Local: f.Local}
}
