package parser

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

// command notes the kind and the facts of a whole command.
func (w *walker) command(n *pg.Node) {
	switch n := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		w.st.Kind = Select
		w.selectStmt(n.SelectStmt, nil, nil)
	case *pg.Node_InsertStmt:
		w.st.Kind = Insert
		w.insertStmt(n.InsertStmt, nil, nil)
	case *pg.Node_UpdateStmt:
		w.st.Kind = Update
		w.updateStmt(n.UpdateStmt, nil, nil)
	case *pg.Node_DeleteStmt:
		w.st.Kind = Delete
		w.deleteStmt(n.DeleteStmt, nil, nil)
	case *pg.Node_MergeStmt:
		w.st.Kind = Merge
		w.mergeStmt(n.MergeStmt, nil, nil)
	case *pg.Node_TruncateStmt:
		w.st.Kind = Truncate
		for _, r := range n.TruncateStmt.Relations {
			wr := w.write(OpTruncate, r.GetRangeVar())
			wr.Cascade = n.TruncateStmt.Behavior == pg.DropBehavior_DROP_CASCADE
		}
	case *pg.Node_CopyStmt:
		w.copyStmt(n.CopyStmt)
	case *pg.Node_RefreshMatViewStmt:
		w.st.Kind = Refresh
		w.write(OpRefresh, n.RefreshMatViewStmt.Relation)
	case *pg.Node_CreateTableAsStmt:
		w.st.Kind = DDL
		w.query(n.CreateTableAsStmt.Query, nil, nil)
		if w.into(n.CreateTableAsStmt.Into); n.CreateTableAsStmt.Objtype != pg.ObjectType_OBJECT_TABLE {
			w.st.Defines = nil
		}
	case *pg.Node_ExplainStmt:
		w.explainStmt(n.ExplainStmt)
	case *pg.Node_DeclareCursorStmt:
		w.st.Kind = Cursor
		w.query(n.DeclareCursorStmt.Query, nil, nil)
	case *pg.Node_TransactionStmt:
		w.transactionStmt(n.TransactionStmt)
	case *pg.Node_VariableSetStmt:
		w.setStmt(n.VariableSetStmt)
	case *pg.Node_DiscardStmt:
		w.st.Kind = Discard
		switch n.DiscardStmt.Target {
		case pg.DiscardMode_DISCARD_ALL:
			w.st.Discards = "all"
		case pg.DiscardMode_DISCARD_PLANS:
			w.st.Discards = "plans"
		case pg.DiscardMode_DISCARD_SEQUENCES:
			w.st.Discards = "sequences"
		case pg.DiscardMode_DISCARD_TEMP:
			w.st.Discards = "temp"
		}
	case *pg.Node_CallStmt:
		w.st.Kind = Call
		if n.CallStmt.Funccall == nil {
			w.deny()
			return
		}
		w.funcCall(&scope{}, n.CallStmt.Funccall)
	case *pg.Node_DoStmt:
		w.st.Kind = Do
		w.st.Body = w.doBody(n.DoStmt)
	default:
		w.st.Kind = utilityKind(n)
		w.define(n)
	}
}

// doBody reads the text of DO, where it is not a literal that the facts must
// not depend on.
func (w *walker) doBody(s *pg.DoStmt) *Body {
	language, source := "plpgsql", ""
	for _, n := range s.Args {
		d := n.GetDefElem()
		switch text := d.GetArg().GetString_().GetSval(); d.GetDefname() {
		case "language":
			language = text
		case "as":
			source = text
		}
	}
	if w.literals != nil {
		return nil
	}
	body, err := ParseBody(language, source)
	if err != nil {
		return nil
	}
	return body
}

// utilityKind is the kind of a command that has no other facts.
func utilityKind(node any) Kind {
	if isRemark(node) {
		return Remark
	}
	switch node.(type) {
	case *pg.Node_FetchStmt, *pg.Node_ClosePortalStmt:
		return Cursor
	case *pg.Node_ConstraintsSetStmt:
		return SetTransaction
	case *pg.Node_PrepareStmt:
		return PrepareStatement
	case *pg.Node_ExecuteStmt:
		return Execute
	case *pg.Node_DeallocateStmt:
		return Deallocate
	case *pg.Node_NotifyStmt, *pg.Node_ListenStmt, *pg.Node_UnlistenStmt:
		return Notify
	case *pg.Node_LockStmt:
		return Lock
	case *pg.Node_VariableShowStmt:
		return Show
	case *pg.Node_VacuumStmt, *pg.Node_CheckPointStmt, *pg.Node_LoadStmt:
		return Maintenance
	case *pg.Node_AlterCollationStmt, *pg.Node_AlterDatabaseRefreshCollStmt, *pg.Node_AlterDatabaseSetStmt,
		*pg.Node_AlterDatabaseStmt, *pg.Node_AlterDefaultPrivilegesStmt, *pg.Node_AlterDomainStmt,
		*pg.Node_AlterEnumStmt, *pg.Node_AlterEventTrigStmt, *pg.Node_AlterExtensionContentsStmt,
		*pg.Node_AlterExtensionStmt, *pg.Node_AlterFdwStmt, *pg.Node_AlterForeignServerStmt,
		*pg.Node_AlterFunctionStmt, *pg.Node_AlterObjectDependsStmt, *pg.Node_AlterObjectSchemaStmt,
		*pg.Node_AlterOpFamilyStmt, *pg.Node_AlterOperatorStmt, *pg.Node_AlterOwnerStmt,
		*pg.Node_AlterPolicyStmt, *pg.Node_AlterPublicationStmt, *pg.Node_AlterRoleSetStmt,
		*pg.Node_AlterRoleStmt, *pg.Node_AlterSeqStmt, *pg.Node_AlterStatsStmt,
		*pg.Node_AlterSubscriptionStmt, *pg.Node_AlterSystemStmt, *pg.Node_AlterTableMoveAllStmt,
		*pg.Node_AlterTableSpaceOptionsStmt, *pg.Node_AlterTableStmt, *pg.Node_AlterTsconfigurationStmt,
		*pg.Node_AlterTsdictionaryStmt, *pg.Node_AlterTypeStmt, *pg.Node_AlterUserMappingStmt,
		*pg.Node_ClusterStmt, *pg.Node_CompositeTypeStmt,
		*pg.Node_CreateAmStmt, *pg.Node_CreateCastStmt, *pg.Node_CreateConversionStmt,
		*pg.Node_CreateDomainStmt, *pg.Node_CreateEnumStmt, *pg.Node_CreateEventTrigStmt,
		*pg.Node_CreateExtensionStmt, *pg.Node_CreateFdwStmt, *pg.Node_CreateForeignServerStmt,
		*pg.Node_CreateForeignTableStmt, *pg.Node_CreateFunctionStmt, *pg.Node_CreateOpClassStmt,
		*pg.Node_CreateOpFamilyStmt, *pg.Node_CreatePlangStmt, *pg.Node_CreatePolicyStmt,
		*pg.Node_CreatePublicationStmt, *pg.Node_CreateRangeStmt,
		*pg.Node_CreateSchemaStmt, *pg.Node_CreateSeqStmt, *pg.Node_CreateStatsStmt,
		*pg.Node_CreateStmt, *pg.Node_CreateSubscriptionStmt, *pg.Node_CreateTableSpaceStmt,
		*pg.Node_CreateTransformStmt, *pg.Node_CreateTrigStmt, *pg.Node_CreateUserMappingStmt,
		*pg.Node_CreatedbStmt, *pg.Node_DefineStmt, *pg.Node_DropOwnedStmt, *pg.Node_DropRoleStmt,
		*pg.Node_DropStmt, *pg.Node_DropSubscriptionStmt, *pg.Node_DropTableSpaceStmt,
		*pg.Node_DropUserMappingStmt, *pg.Node_DropdbStmt, *pg.Node_GrantRoleStmt, *pg.Node_GrantStmt,
		*pg.Node_ImportForeignSchemaStmt, *pg.Node_IndexStmt, *pg.Node_ReassignOwnedStmt, *pg.Node_ReindexStmt,
		*pg.Node_RenameStmt, *pg.Node_RuleStmt, *pg.Node_SecLabelStmt, *pg.Node_ViewStmt:
		return DDL
	}
	return Opaque
}

func (w *walker) copyStmt(s *pg.CopyStmt) {
	switch {
	case s.Query != nil && s.Query.Node != nil:
		w.st.Kind = CopyTo
		w.query(s.Query, nil, nil)
	case s.Relation == nil:
		w.deny()
	case s.IsFrom:
		w.st.Kind = CopyFrom
		wr := w.write(OpCopy, s.Relation)
		w.expr(w.target(wr, s.Relation, nil, nil), s.WhereClause)
	default:
		w.st.Kind = CopyTo
		rel := relation(s.Relation)
		rel.AllColumns = len(s.Attlist) == 0
		for _, n := range s.Attlist {
			rel.Columns = append(rel.Columns, n.GetString_().GetSval())
		}
		w.reads = append(w.reads, &rel)
	}
}

// explainStmt takes the facts of what EXPLAIN ANALYZE runs. The option counts
// as given whatever its value is, because that may be a literal.
func (w *walker) explainStmt(s *pg.ExplainStmt) {
	analyze := false
	for _, n := range s.Options {
		analyze = analyze || n.GetDefElem().GetDefname() == "analyze"
	}
	run := &walker{sql: w.sql, literals: w.literals}
	run.command(s.Query)
	if !analyze {
		w.st = Statement{Kind: Explain, Params: run.st.Params}
		return
	}
	w.st, w.reads, w.writes = run.st, run.reads, run.writes
	w.st.Defines = nil // the option may say that it does not run
	w.unknown = run.unknown
	switch {
	case run.st.Into || run.st.Kind == DDL:
		w.st.Kind = DDL
	case run.st.Kind == Opaque || run.st.Kind == Execute:
		w.deny()
	default:
		w.st.Kind = Explain
	}
}

func (w *walker) transactionStmt(s *pg.TransactionStmt) {
	switch s.Kind {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN, pg.TransactionStmtKind_TRANS_STMT_START:
		w.st.Kind = Begin
		w.st.Given = len(s.Options) > 0
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		w.st.Kind = Commit
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		w.st.Kind = Rollback
	case pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		w.st.Kind = Savepoint
	case pg.TransactionStmtKind_TRANS_STMT_RELEASE:
		w.st.Kind = ReleaseSavepoint
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		w.st.Kind = RollbackTo
	case pg.TransactionStmtKind_TRANS_STMT_PREPARE:
		w.st.Kind = PrepareTransaction
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED:
		w.st.Kind = CommitPrepared
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
		w.st.Kind = RollbackPrepared
	default:
		w.deny()
	}
}

// setStmt notes which setting SET or RESET names. The forms that set several
// name none.
func (w *walker) setStmt(s *pg.VariableSetStmt) {
	w.st.Kind = Set
	w.st.Local = s.IsLocal
	switch s.Kind {
	case pg.VariableSetKind_VAR_SET_VALUE, pg.VariableSetKind_VAR_SET_DEFAULT,
		pg.VariableSetKind_VAR_SET_CURRENT, pg.VariableSetKind_VAR_RESET:
		w.st.SettingName = strings.ToLower(s.Name)
		w.st.Given = s.Kind == pg.VariableSetKind_VAR_SET_VALUE
		w.st.Default = s.Kind == pg.VariableSetKind_VAR_SET_DEFAULT || s.Kind == pg.VariableSetKind_VAR_RESET
	case pg.VariableSetKind_VAR_SET_MULTI:
		if s.Name == "TRANSACTION" || s.Name == "TRANSACTION SNAPSHOT" {
			w.st.Kind = SetTransaction
		}
	case pg.VariableSetKind_VAR_RESET_ALL:
		w.st.Default = true
	default:
		w.deny()
	}
}

// isRemark reports that a command is a Remark, see there.
func isRemark(node any) bool {
	switch n := node.(type) {
	case *pg.Node_CommentStmt, *pg.Node_CreateRoleStmt, *pg.Node_CreateStatsStmt, *pg.Node_AlterStatsStmt, *pg.Node_ClusterStmt:
		return true
	case *pg.Node_ReindexStmt:
		return len(n.ReindexStmt.Params) == 0 // CONCURRENTLY puts another index in its place
	case *pg.Node_DropStmt:
		return n.DropStmt.RemoveType == pg.ObjectType_OBJECT_STATISTIC_EXT
	case *pg.Node_IndexStmt:
		s := n.IndexStmt
		if s.AccessMethod == "btree" || s.AccessMethod == "hash" { // its first column may be one by which reads find rows
			return false
		}
		return s.WhereClause == nil && allOf(s.IndexParams, func(n *pg.Node) bool { // an expression is code that runs in each write
			e := n.GetIndexElem()
			return e.GetName() != "" && len(e.Opclass) == 0
		})
	case *pg.Node_AlterTableStmt:
		return allOf(n.AlterTableStmt.Cmds, func(n *pg.Node) bool {
			c := n.GetAlterTableCmd()
			return (c.GetSubtype() == pg.AlterTableType_AT_SetRelOptions || c.GetSubtype() == pg.AlterTableType_AT_ResetRelOptions) &&
				allOf(c.Def.GetList().GetItems(), func(n *pg.Node) bool { return isStorage(n.GetDefElem()) })
		})
	}
	return false
}

func allOf(nodes []*pg.Node, ok func(*pg.Node) bool) bool {
	return len(nodes) > 0 && !slices.ContainsFunc(nodes, func(n *pg.Node) bool { return !ok(n) })
}

// isStorage reports that an option of a relation is about its files and their upkeep; those of
// views are about what may be seen.
func isStorage(option *pg.DefElem) bool {
	switch option.GetDefname() {
	case "fillfactor", "toast_tuple_target", "parallel_workers", "log_autovacuum_min_duration", "vacuum_index_cleanup", "vacuum_truncate":
		return true
	}
	return strings.HasPrefix(option.GetDefname(), "autovacuum_")
}
