package parser

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// Definition is what a command of DDL says of relations that it makes, drops or alters, where
// the catalog changes in nothing but them and what goes with them.
type Definition struct {
	// Makes is a table, view or sequence that is there after the command and belongs to the
	// session: it is TEMP, or of the schema pg_temp. With ON COMMIT DROP it is UntilCommit.
	Makes       Name
	UntilCommit bool

	// Table says that it is a table. What runs for its rows is Computed, the defaults, checks
	// and generated columns as one query, and that of the tables in Like; Coded says that there
	// may be more. Of a view Computed is the query. It is nil where there is none.
	Table    bool
	Computed *Statement
	Like     []Name
	Coded    bool

	// Indexes are the names that the command gives to indexes. One without a name has
	// one that begins with the table's.
	Indexes []string

	Drops []Name // without what depends on them

	// Alters is a table of which columns or keys change, without anything that is computed, or
	// a relation whose name does. Renamed is its name then, "" if that stays.
	Alters  Name
	Renamed string
}

// IsTemporary reports that a schema is one of temporary objects, whatever the search_path.
func IsTemporary(schema string) bool {
	return schema == "pg_temp" || strings.HasPrefix(schema, "pg_temp_")
}

// makes begins the definition of a new relation, nil if it is everybody's.
func makes(r *pg.RangeVar) *Definition {
	if r.GetRelpersistence() != "t" && !IsTemporary(r.GetSchemaname()) {
		return nil
	}
	return &Definition{Makes: rangeName(r)}
}

func rangeName(r *pg.RangeVar) Name { return Name{Schema: r.GetSchemaname(), Name: r.GetRelname()} }

// define notes what a command of DDL says of relations, if that is all.
func (w *walker) define(node any) {
	switch n := node.(type) {
	case *pg.Node_CreateStmt:
		w.st.Defines = w.table(n.CreateStmt)
	case *pg.Node_ViewStmt:
		if w.st.Defines = makes(n.ViewStmt.View); w.st.Defines != nil {
			run := &walker{sql: w.sql, literals: w.literals}
			run.command(n.ViewStmt.Query)
			w.st.Defines.Computed = run.statement()
		}
	case *pg.Node_CreateSeqStmt:
		w.st.Defines = makes(n.CreateSeqStmt.Sequence)
	case *pg.Node_DropStmt:
		w.st.Defines = drops(n.DropStmt)
	case *pg.Node_IndexStmt:
		w.st.Defines = index(n.IndexStmt)
	case *pg.Node_RenameStmt:
		w.st.Defines = renames(n.RenameStmt)
	case *pg.Node_AlterTableStmt:
		w.st.Defines = w.alters(n.AlterTableStmt)
	}
}

// into notes the table that the rows of a query make.
func (w *walker) into(into *pg.IntoClause) {
	w.st.Into = true
	if w.st.Defines = makes(into.GetRel()); w.st.Defines != nil {
		w.st.Defines.Table, w.st.Defines.UntilCommit = true, into.OnCommit == pg.OnCommitAction_ONCOMMIT_DROP
	}
}

// table is nil for one that has a part in others.
func (w *walker) table(s *pg.CreateStmt) *Definition {
	d := makes(s.Relation)
	if d == nil {
		return nil
	}
	d.Table, d.UntilCommit = true, s.Oncommit == pg.OnCommitAction_ONCOMMIT_DROP
	d.Coded = s.Partspec != nil || s.OfTypename != nil
	run := &walker{sql: w.sql, literals: w.literals}
	if len(s.InhRelations) > 0 || s.Partbound != nil || !run.elements(d, slices.Concat(s.TableElts, s.Constraints)) {
		return nil
	}
	if c := run.statement(); c.Kind != Select || run.computes() {
		d.Computed = c
	}
	return d
}

// computes reports that anything was found in the expressions that is more than a constant or a column.
func (w *walker) computes() bool {
	return len(w.st.Functions)+len(w.st.Operators)+len(w.st.Types)+len(w.st.Keywords)+len(w.st.Attributes)+len(w.reads) > 0
}

// elements takes the parts of a table into d and walks over what is computed in them.
func (w *walker) elements(d *Definition, list []*pg.Node) bool {
	w.st.Kind = Select
	for _, n := range list {
		switch n := n.GetNode().(type) {
		case *pg.Node_ColumnDef:
			if !w.elements(d, n.ColumnDef.Constraints) {
				return false
			}
			w.expr(&scope{}, n.ColumnDef.RawDefault)
		case *pg.Node_TableLikeClause:
			d.Like = append(d.Like, rangeName(n.TableLikeClause.Relation))
		case *pg.Node_Constraint:
			if !w.constraint(d, n.Constraint) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func (w *walker) constraint(d *Definition, c *pg.Constraint) bool {
	switch c.Contype {
	case pg.ConstrType_CONSTR_NULL, pg.ConstrType_CONSTR_NOTNULL, pg.ConstrType_CONSTR_ATTR_DEFERRABLE,
		pg.ConstrType_CONSTR_ATTR_NOT_DEFERRABLE, pg.ConstrType_CONSTR_ATTR_DEFERRED, pg.ConstrType_CONSTR_ATTR_IMMEDIATE:
	case pg.ConstrType_CONSTR_DEFAULT, pg.ConstrType_CONSTR_CHECK, pg.ConstrType_CONSTR_GENERATED:
		w.expr(&scope{}, c.RawExpr)
	case pg.ConstrType_CONSTR_PRIMARY, pg.ConstrType_CONSTR_UNIQUE:
		if c.Conname != "" {
			d.Indexes = append(d.Indexes, c.Conname)
		}
	case pg.ConstrType_CONSTR_IDENTITY:
		return len(c.Options) == 0 // one of them names the sequence
	case pg.ConstrType_CONSTR_FOREIGN:
		d.Coded = true
	default:
		return false
	}
	return true
}

// drops is nil for what takes others with it.
func drops(s *pg.DropStmt) *Definition {
	switch s.RemoveType {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_INDEX:
	default:
		return nil
	}
	d := &Definition{}
	for _, n := range s.Objects {
		name, ok := qualifiedName(n.GetList().GetItems())
		if !ok {
			return nil
		}
		d.Drops = append(d.Drops, name)
	}
	if s.Behavior == pg.DropBehavior_DROP_CASCADE || s.Concurrent {
		return nil
	}
	return d
}

// index is nil where something is computed.
func index(s *pg.IndexStmt) *Definition {
	plain := s.WhereClause == nil && !s.Concurrent
	for _, n := range s.IndexParams {
		plain = plain && n.GetIndexElem().GetName() != "" && len(n.GetIndexElem().GetOpclass()) == 0
	}
	if !plain {
		return nil
	}
	d := &Definition{Alters: rangeName(s.Relation)}
	if s.Idxname != "" {
		d.Indexes = []string{s.Idxname}
	}
	return d
}

// renames is nil for what is no relation, and no part of a table.
func renames(s *pg.RenameStmt) *Definition {
	d := &Definition{Alters: rangeName(s.Relation)}
	switch s.RenameType {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_INDEX:
		d.Renamed = s.Newname
	case pg.ObjectType_OBJECT_COLUMN:
		if s.RelationType != pg.ObjectType_OBJECT_TABLE {
			return nil
		}
	default:
		return nil
	}
	return d
}

// alters is nil where something is computed, or another table may have a part in it.
func (w *walker) alters(s *pg.AlterTableStmt) *Definition {
	if s.Objtype != pg.ObjectType_OBJECT_TABLE {
		return nil
	}
	d := &Definition{Alters: rangeName(s.Relation)}
	run := &walker{sql: w.sql, literals: w.literals}
	for _, n := range s.Cmds {
		c := n.GetAlterTableCmd()
		plain := true
		switch c.GetSubtype() {
		case pg.AlterTableType_AT_AddColumn, pg.AlterTableType_AT_AddConstraint:
			plain = run.elements(d, []*pg.Node{c.Def})
		case pg.AlterTableType_AT_DropColumn:
			plain = c.Behavior != pg.DropBehavior_DROP_CASCADE
		case pg.AlterTableType_AT_ColumnDefault:
			run.expr(&scope{}, c.Def)
		case pg.AlterTableType_AT_AlterColumnType:
			plain = c.Def.GetColumnDef().GetRawDefault() == nil
		case pg.AlterTableType_AT_DropNotNull, pg.AlterTableType_AT_SetNotNull, pg.AlterTableType_AT_SetStatistics, pg.AlterTableType_AT_SetStorage:
		default:
			plain = false
		}
		if !plain {
			return nil
		}
	}
	if d.Coded || run.unknown || run.computes() {
		return nil
	}
	return d
}
