package parser

import "testing"

// What a newer grammar accepts is bounded if it is one query or change of rows.
func TestUnreadIsBounded(t *testing.T) {
	tests := []struct {
		sql  string
		want bool
	}{
		{"SELECT at AT LOCAL FROM t", true},
		{"/* c */ select JSON_VALUE(a, '$' RETURNING int) -- ;", true},
		{"SELECT ';' AT LOCAL;", true},
		{"SELECT 1 AT LOCAL ; ", true},
		{"WITH m AS (MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE RETURNING t.id) SELECT * FROM m", true},
		{"MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED BY SOURCE THEN DELETE", true},
		{"UPDATE t SET a = 1 RETURNING WITH (OLD AS o) o.a", true},
		{"EXPLAIN ANALYZE DELETE FROM t WHERE JSON_EXISTS(a, '$' PASSING 1 AS x)", true},

		{"", false},
		{";", false},
		{"; SELECT 1 AT LOCAL", false},
		{"SELECT 1 AT LOCAL; COMMIT", false},
		{"SELECT 1 AT LOCAL;; COMMIT", false},
		{"SELECT 1 AT LOCAL;;", false},
		{"COMMIT AND SOMETHING NEW", false},
		{"BEGIN SOMEHOW", false},
		{"CALL p() SOMEHOW", false},
		{"VACUUM ONLY t", false},
		{`"select" 1 AT LOCAL`, false},
		{"(SELECT 1) AT LOCAL", false},
		{"SELECT 'open", false},
		{"SELECT \x00", false},
		{"SELECT '\xff'", false},
		{"SELECT U&'\\0061' UESCAPE '!' AT LOCAL; COMMIT", false},
	}
	for _, tt := range tests {
		st := Unread(tt.sql)
		if st.Kind != Opaque || st.Bounded != tt.want {
			t.Errorf("%q: got %v, bounded %v, want %v", tt.sql, st.Kind, st.Bounded, tt.want)
		}
	}
}
