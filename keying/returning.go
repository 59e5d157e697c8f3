package keying

import (
	"github.com/cachedpg/cachedpg/store"
)

// Returning is what a statement is made to return besides what it returns by
// itself, so that it tells the values that its rows have in columns by which
// results are kept.
type Returning struct {
	Relation uint32   // the target; the role must be allowed to SELECT Columns of it
	Columns  []string // in the order in which RowTags expects them
	List     string   // they as a list for RETURNING, quoted and qualified
	Own      bool     // the statement has a RETURNING of its own

	// Few says that the text bounds the rows to about as many as a write names one
	// by one: VALUES, or a WHERE that fixes a unique key. Of other statements that
	// is to be learnt from how many rows they have changed before.
	Few bool
}

// Returning tells what the statement should return; nil where the text says all
// that there is to know, and where it must not be changed.
func (p *Plan) Returning() *Returning { return p.returning }

// TextTags appends the tags of a statement that returns what Returning says,
// without those that RowTags adds for each row.
func (p *Plan) TextTags(dst []store.Tag, v Values) []store.Tag { return p.WriteTags(dst, v) }

// RowTags adds the tags of one row that the statement has returned. columns and
// values are of Returning's columns alone; a nil value is NULL.
func (p *Plan) RowTags(s *store.TagSet, v Values, columns []store.Column, values [][]byte) {}
