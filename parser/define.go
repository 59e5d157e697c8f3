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
	// session: it is TEMP, or of the schema pg_temp. With ON COMMIT DROP it is UntilCommit. A view
	// that is Derived belongs to the session if anything in its query does.
	Makes       Name
	UntilCommit bool
	Derived     bool

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

	Drops    []Name // without what depends on them, unless it Spreads
	IfExists bool   // they are tables, views or sequences that need not be there

	// Alters is a table of which columns or keys change, without anything that is computed, or
	// a relation whose name does. Renamed is its name then, "" if that stays.
	Alters  Name
	Renamed string

	// Untold says that it does more to these than is told, such as a trigger or a parent. What
	// Spreads may also run code, and do something to others.
	Untold  bool
	Spreads bool
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
		w.st.Defines = w.view(n.ViewStmt)
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
	case *pg.Node_AlterSeqStmt:
		w.st.Defines = &Definition{Alters: rangeName(n.AlterSeqStmt.Sequence), Untold: true}
	case *pg.Node_CreateTrigStmt:
		w.st.Defines = &Definition{Alters: rangeName(n.CreateTrigStmt.Relation), Untold: true}
	case *pg.Node_RuleStmt:
		w.st.Defines = &Definition{Alters: rangeName(n.RuleStmt.Relation), Untold: true}
	case *pg.Node_CreatePolicyStmt:
		w.st.Defines = &Definition{Alters: rangeName(n.CreatePolicyStmt.Table), Untold: true}
	case *pg.Node_CompositeTypeStmt:
		w.st.Defines = makes(n.CompositeTypeStmt.Typevar).spreading()
	case *pg.Node_CreateEnumStmt:
		w.st.Defines = named(n.CreateEnumStmt.TypeName)
	case *pg.Node_CreateDomainStmt:
		w.st.Defines = named(n.CreateDomainStmt.Domainname)
	case *pg.Node_CreateRangeStmt:
		w.st.Defines = named(n.CreateRangeStmt.TypeName)
	case *pg.Node_CreateFunctionStmt:
		w.st.Defines = named(n.CreateFunctionStmt.Funcname)
	}
}

func (d *Definition) spreading() *Definition {
	if d != nil {
		d.Spreads = true
	}
	return d
}

// named begins the definition of what is no relation, nil if it is everybody's.
func named(nodes []*pg.Node) *Definition {
	name, ok := qualifiedName(nodes)
	if !ok || !IsTemporary(name.Schema) {
		return nil
	}
	return &Definition{Makes: name, Spreads: true}
}

func (w *walker) view(s *pg.ViewStmt) *Definition {
	d := makes(s.View)
	switch {
	case d == nil && s.View.GetSchemaname() != "":
		return nil
	case d == nil:
		d = &Definition{Makes: rangeName(s.View), Derived: true}
	}
	run := &walker{sql: w.sql, literals: w.literals}
	run.command(s.Query)
	d.Computed = run.statement()
	return d
}

// into notes the table that the rows of a query make.
func (w *walker) into(into *pg.IntoClause) {
	w.st.Into = true
	if w.st.Defines = makes(into.GetRel()); w.st.Defines != nil {
		w.st.Defines.Table, w.st.Defines.UntilCommit = true, into.OnCommit == pg.OnCommitAction_ONCOMMIT_DROP
	}
}

func (w *walker) table(s *pg.CreateStmt) *Definition {
	d := makes(s.Relation)
	if d == nil {
		return nil
	}
	d.Table, d.UntilCommit = true, s.Oncommit == pg.OnCommitAction_ONCOMMIT_DROP
	d.Coded = s.Partspec != nil || s.OfTypename != nil
	d.Untold = len(s.InhRelations) > 0 || s.Partbound != nil
	run := &walker{sql: w.sql, literals: w.literals}
	if !run.elements(d, slices.Concat(s.TableElts, s.Constraints)) {
		return d.spreading()
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

// drops is nil for what is no relation, and no part of a table.
func drops(s *pg.DropStmt) *Definition {
	d := &Definition{Spreads: s.Behavior == pg.DropBehavior_DROP_CASCADE}
	part := false
	switch s.RemoveType {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_SEQUENCE:
		d.IfExists = s.MissingOk
	case pg.ObjectType_OBJECT_INDEX:
	case pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_RULE, pg.ObjectType_OBJECT_POLICY:
		part = true
	default:
		return nil
	}
	for _, n := range s.Objects {
		items := n.GetList().GetItems()
		if part {
			items = items[:max(len(items)-1, 0)]
		}
		name, ok := qualifiedName(items)
		if !ok {
			return nil
		}
		d.Drops = append(d.Drops, name)
	}
	switch {
	case s.Concurrent:
		return nil
	case part && len(d.Drops) == 1:
		d.Alters, d.Drops, d.Untold = d.Drops[0], nil, true
	case part:
		return nil
	}
	return d
}

// index Spreads where something is computed.
func index(s *pg.IndexStmt) *Definition {
	if s.Concurrent {
		return nil
	}
	d := &Definition{Alters: rangeName(s.Relation), Spreads: s.WhereClause != nil}
	for _, n := range s.IndexParams {
		d.Spreads = d.Spreads || n.GetIndexElem().GetName() == "" || len(n.GetIndexElem().GetOpclass()) > 0
	}
	if s.Idxname != "" {
		d.Indexes = []string{s.Idxname}
	}
	return d
}

// renames is nil for what is no relation, and no part of one.
func renames(s *pg.RenameStmt) *Definition {
	if s.Relation == nil {
		return nil
	}
	d := &Definition{Alters: rangeName(s.Relation)}
	switch s.RenameType {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_INDEX:
		d.Renamed = s.Newname
	case pg.ObjectType_OBJECT_COLUMN:
		d.Untold = s.RelationType != pg.ObjectType_OBJECT_TABLE
	default:
		d.Untold = true
	}
	return d
}

// alters Spreads where something is computed, or others may have a part in it.
func (w *walker) alters(s *pg.AlterTableStmt) *Definition {
	d := &Definition{Alters: rangeName(s.Relation), Spreads: s.Objtype != pg.ObjectType_OBJECT_TABLE}
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
		case pg.AlterTableType_AT_AddInherit, pg.AlterTableType_AT_DropInherit:
			d.Untold = true
		case pg.AlterTableType_AT_DropNotNull, pg.AlterTableType_AT_SetNotNull, pg.AlterTableType_AT_SetStatistics, pg.AlterTableType_AT_SetStorage:
		default:
			plain = false
		}
		d.Spreads = d.Spreads || !plain
	}
	d.Spreads = d.Spreads || d.Coded || run.unknown || run.computes()
	return d
}
