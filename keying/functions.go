package keying

import "strings"

// stableBuiltins are the functions of pg_catalog that PostgreSQL declares
// stable and whose result depends on nothing but the arguments and on session
// settings that are in the key (TimeZone, DateStyle, IntervalStyle, lc_*,
// default_text_search_config, …) or on what the schema tag covers (text search
// configurations, encodings).
//
// The list is the whole of what is allowed. Left out on purpose: everything
// that reads the clock, the snapshot, the session, the catalog, privileges,
// sizes or statistics; the json…populate and …to_record family, which reads
// texts inside documents as dates; and the like of timetz and time, where the
// current date enters. All overloads of a name must pass, so age is in with two
// arguments, where it is immutable, and out with one.
var stableBuiltins = set(`
	concat concat_ws format anytextcat textanycat
	quote_literal quote_nullable
	array_to_string
	to_char to_date to_number to_timestamp
	date_part date_trunc extract timezone make_timestamptz
	date timestamp timestamptz time
	date_add date_subtract
	interval_pl_timestamptz timestamptz_pl_interval timestamptz_mi_interval
	generate_series overlaps
	date_cmp_timestamptz date_eq_timestamptz date_ge_timestamptz
	date_gt_timestamptz date_le_timestamptz date_lt_timestamptz date_ne_timestamptz
	timestamp_cmp_timestamptz timestamp_eq_timestamptz timestamp_ge_timestamptz
	timestamp_gt_timestamptz timestamp_le_timestamptz timestamp_lt_timestamptz
	timestamp_ne_timestamptz
	timestamptz_cmp_date timestamptz_eq_date timestamptz_ge_date
	timestamptz_gt_date timestamptz_le_date timestamptz_lt_date timestamptz_ne_date
	timestamptz_cmp_timestamp timestamptz_eq_timestamp timestamptz_ge_timestamp
	timestamptz_gt_timestamp timestamptz_le_timestamp timestamptz_lt_timestamp
	timestamptz_ne_timestamp
	to_json to_jsonb row_to_json array_to_json
	json_build_array json_build_object jsonb_build_array jsonb_build_object
	json_agg jsonb_agg json_agg_strict jsonb_agg_strict
	json_object_agg jsonb_object_agg
	json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict
	jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict
	to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery
	ts_headline json_to_tsvector jsonb_to_tsvector ts_match_tt ts_match_tq
	convert convert_from convert_to length
	money numeric cash_in cash_out
	current_database
`)

// impureBuiltins are declared immutable and read the catalog, or the server's
// timeline, all the same.
var impureBuiltins = set(`
	pg_partition_root pg_walfile_name pg_walfile_name_offset
`)

// impureExtensions are functions of extensions that are declared immutable and
// read texts as dates: hstore's.
var impureExtensions = set(`populate_record`)

// newConstructs are called like functions and are none, in versions of
// PostgreSQL that are newer than the grammar here; or are there in its version
// and not in older ones.
var newConstructs = set(`json_exists json_query json_scalar json_serialize json_value merge_action system_user`)

// constructsOf16 are called like functions and are none, from PostgreSQL 16 on.
var constructsOf16 = set(`json_array json_arrayagg json_object json_objectagg`)

// queryBuiltins run SQL that they are given as text.
var queryBuiltins = set(`
	query_to_xml query_to_xml_and_xmlschema query_to_xmlschema cursor_to_xml
	cursor_to_xmlschema ts_stat ts_rewrite
	schema_to_xml schema_to_xml_and_xmlschema database_to_xml
	database_to_xml_and_xmlschema table_to_xml table_to_xml_and_xmlschema
	pg_import_system_collations binary_upgrade_create_empty_extension
	binary_upgrade_set_missing_value binary_upgrade_set_record_init_privs
`)

// sessionBuiltins change settings of the session.
var sessionBuiltins = set(`set_config pg_reload_conf`)

// constantKeywords depend on nothing but the role and the database, which are
// in the key. Every other keyword of a statement keeps it from the cache.
var constantKeywords = set(`
	current_user current_role user session_user current_catalog
`)

// clockKeywords read the clock.
var clockKeywords = set(`current_date current_time current_timestamp localtime localtimestamp`)

// systemColumns change without the row's values changing: a lock sets xmax, a
// rewrite of the table moves ctid. tableoid does not.
var systemColumns = set(`ctid xmin xmax cmin cmax`)

func set(words string) map[string]bool {
	m := make(map[string]bool)
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}
