package planning

import (
	"slices"

	"github.com/cachedpg/cachedpg/parser"
)

// MayCommit reports that the text, run inside a transaction, may commit it.
func (p *Text) MayCommit() bool {
	return p.Has(parser.Opaque) && p.Plan.Commits || p.Has(parser.Commit) || p.Has(parser.PrepareTransaction)
}

// Effects reports that running the text may change anything that the driver
// keeps track of: tables, the session, or the transaction.
func (p *Text) Effects() bool {
	plan := p.Plan
	if plan.Writes || plan.Session {
		return true
	}
	for _, kind := range plan.Kinds {
		if kind >= parser.Begin && kind <= parser.SetTransaction {
			return true
		}
	}
	return false
}

// FixesSnapshot reports that PostgreSQL certainly needs a snapshot to run the text: none
// of the commands that may still come before a SET TRANSACTION is all there is.
func (p *Text) FixesSnapshot() bool {
	return slices.ContainsFunc(p.Plan.Kinds, func(kind parser.Kind) bool {
		switch kind {
		case parser.Select, parser.Insert, parser.Update, parser.Delete, parser.Merge, parser.Truncate, parser.CopyFrom, parser.CopyTo,
			parser.Refresh, parser.DDL, parser.Remark, parser.Do, parser.Call, parser.Explain:
			return true
		}
		return false
	})
}

// EndsTransaction reports that the text is one command that ends the
// transaction which is open, for good or to be decided later.
func (p *Text) EndsTransaction() bool {
	return len(p.Plan.Kinds) == 1 && (p.Has(parser.Commit) || p.Has(parser.PrepareTransaction))
}

func (p *Text) Has(kind parser.Kind) bool { return slices.Contains(p.Plan.Kinds, kind) }
