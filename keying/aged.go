package keying

import "strings"

// Of what depends on the clock, on chance or on something that changes without a
// trace, an answer is of its moment. Who says how old it may be can be
// given it again until then. The lists are the whole of what that excuses:
// nothing that writes, locks or must be done each time is on them, and nothing that
// differs between sessions with the same key.

// Moment is a reason that age makes up for, with its detail.
type Moment struct {
	Reason Reason
	Detail string // as Plan.Detail
}

// excusable reports whether age makes up for a reason.
func excusable(r Reason, detail string) bool {
	switch r {
	case ClockKeyword, ClockCast, ClockInput, Sample, SequenceRead, UnloggedTable, ForeignTable, SystemColumn:
		return true
	case ClockType: // domains have checks, which may call anything
		return !strings.Contains(detail, ".") || detail == "pg_catalog.timetz"
	case StableFunction, VolatileFunction: // a user's has its schema
		return momentary[detail]
	case SystemCatalog:
		schema, name, _ := strings.Cut(detail, ".")
		return schema == "information_schema" || schema == "pg_catalog" && (momentaryCatalogs[name] ||
			strings.HasPrefix(name, "pg_stat") && !strings.HasPrefix(name, "pg_stat_xact"))
	}
	return false
}

// momentary are the built-in functions whose result is of its moment, and which do
// nothing else. pg_sleep does; current_setting and pg_backend_pid are the session's.
var momentary = set(`
	now transaction_timestamp statement_timestamp clock_timestamp timeofday age
	random random_normal gen_random_uuid uuidv4 uuidv7
	json_populate_record json_populate_recordset jsonb_populate_record jsonb_populate_recordset
	json_to_record json_to_recordset jsonb_to_record jsonb_to_recordset
	version pg_postmaster_start_time pg_conf_load_time pg_is_in_recovery
	pg_current_wal_lsn pg_current_wal_insert_lsn pg_current_wal_flush_lsn
	pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp
	pg_database_size pg_tablespace_size pg_relation_size pg_table_size pg_indexes_size
	pg_total_relation_size
	obj_description col_description shobj_description format_type
	pg_get_constraintdef pg_get_expr pg_get_functiondef pg_get_indexdef pg_get_triggerdef
	pg_get_userbyid pg_get_viewdef
`)

// momentaryCatalogs are those that show every session of a role the same. pg_settings,
// pg_cursors and pg_prepared_statements do not.
var momentaryCatalogs = set(`
	pg_am pg_attrdef pg_attribute pg_class pg_collation pg_constraint pg_database pg_depend
	pg_description pg_enum pg_extension pg_index pg_indexes pg_inherits pg_locks pg_matviews
	pg_namespace pg_partitioned_table pg_proc pg_publication pg_replication_slots pg_roles
	pg_sequences pg_tables pg_tablespace pg_trigger pg_type pg_views
`)
