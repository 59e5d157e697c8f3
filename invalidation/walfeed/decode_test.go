package walfeed

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// captured is what PostgreSQL 15 has sent for: inserts, an update that leaves a
// value stored elsewhere, an update and a delete by key, the same of a table with
// REPLICA IDENTITY FULL, TRUNCATE of two, a user-defined type, DDL, a message.
func captured(tb testing.TB) (messages [][]byte) {
	tb.Helper()
	text, err := os.ReadFile("testdata/capture.txt")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.FieldsSeq(string(text)) {
		b, err := hex.DecodeString(line)
		if err != nil {
			tb.Fatal(err)
		}
		messages = append(messages, b)
	}
	return messages
}

// transcript tells a transaction without what differs between captures.
func transcript(tx *Transaction, names map[uint32]string) string {
	var words []string
	for _, t := range tx.Tables {
		if names[t.Relation] == "" {
			names[t.Relation] = fmt.Sprintf("t%d", len(names)+1)
		}
		words = append(words, names[t.Relation])
		if t.All {
			words = append(words, "all")
		}
		for _, row := range t.Rows {
			var fields []string
			for _, f := range row {
				if f.Null {
					f.Text = "NULL"
				}
				fields = append(fields, f.Column+"="+f.Text)
			}
			words = append(words, "("+strings.Join(fields, " ")+")")
		}
	}
	if tx.Schema {
		words = append(words, "schema")
	}
	if len(tx.Refreshed) > 0 {
		words = append(words, fmt.Sprintf("refreshed %d", tx.Refreshed))
	}
	if len(tx.Redefined) > 0 {
		words = append(words, fmt.Sprintf("%d redefined", len(tx.Redefined)))
	}
	return strings.Join(words, " ")
}

func TestWhatPostgreSQLSendsIsDecoded(t *testing.T) {
	want := []string{
		"t1",
		"t1 (id=1)", // its key as it is: nothing old was sent
		"t1 (id=2)", // the old one
		"t1 (id=3)",
		"t2",
		"t2 (id=1 n=NULL)",
		"t2 (id=1 n=2)",
		"t1 all t2 all 2 redefined",
		"t3",
		"schema",
		"t1 1 redefined",
		"refreshed [4711]",
	}
	var d Decoder
	var got []string
	names := make(map[uint32]string)
	var changes uint64
	var last *Transaction
	for _, m := range captured(t) {
		tx, err := d.Decode(m)
		if err != nil {
			t.Fatalf("message %x: %v", m, err)
		}
		if tx == nil {
			continue
		}
		if last != nil && (tx.LSN <= last.LSN || tx.Committed.Before(last.Committed) || tx.XID <= last.XID) || tx.Committed.Year() < 2026 {
			t.Errorf("a transaction %+v after %+v", tx, last)
		}
		got, last, changes = append(got, transcript(tx, names)), tx, changes+tx.Changes
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if changes != 12 {
		t.Errorf("got %d changes, want 12", changes)
	}
}

// Cut short at any byte, or with one more, a message is an error and no panic.
func TestDamagedMessagesAreRefused(t *testing.T) {
	messages := captured(t)
	for i, m := range messages {
		if m[0] == 'Y' || m[0] == 'O' {
			continue // nothing is read of them
		}
		for _, damaged := range [][]byte{m[:len(m)-1], m[:len(m)/2], append(m[:len(m):len(m)], 0)} {
			var d Decoder
			for _, before := range messages[:i] {
				if _, err := d.Decode(before); err != nil {
					t.Fatal(err)
				}
			}
			if tx, err := d.Decode(damaged); tx != nil || !errors.Is(err, errMessage) {
				t.Errorf("message %d of kind %q, %d of %d bytes: got %v, %v", i, m[0], len(damaged), len(m), tx, err)
			}
		}
	}
	for _, m := range []string{"", "Z", "S"} { // stream start: it is not asked for
		if _, err := new(Decoder).Decode([]byte(m)); !errors.Is(err, errMessage) {
			t.Errorf("%q: got error %v", m, err)
		}
	}
	if _, err := new(Decoder).Decode(messages[2]); !errors.Is(err, errMessage) {
		t.Errorf("a row outside of a transaction: got error %v", err)
	}
}

func TestATransactionOfManyRowsIsOneOfTheTable(t *testing.T) {
	var d Decoder
	messages := captured(t)
	var update []byte
	for _, m := range messages {
		if m[0] == 'U' {
			update = m
			break
		}
	}
	for _, m := range messages[:2] { // BEGIN, and the table
		if _, err := d.Decode(m); err != nil {
			t.Fatal(err)
		}
	}
	for range MaxRows + 10 {
		if _, err := d.Decode(update); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := d.Decode(messages[4])
	if err != nil || tx == nil {
		t.Fatal(tx, err)
	}
	if tbl := tx.Tables[0]; !tbl.All || len(tbl.Rows) != 0 || tx.Changes != MaxRows+10 {
		t.Errorf("got all %v, %d rows, %d changes", tbl.All, len(tbl.Rows), tx.Changes)
	}
}

// FuzzDecode: whatever comes, the decoder does not panic, and keeps no more than
// it was sent. The seeds are real: each message alone, and all of them, with
// their lengths, as one conversation.
func FuzzDecode(f *testing.F) {
	var all []byte
	for _, m := range captured(f) {
		f.Add(append([]byte{byte(len(m) >> 8), byte(len(m))}, m...))
		all = append(append(all, byte(len(m)>>8), byte(len(m))), m...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Decoder
		for len(b) >= 2 {
			n := min(int(b[0])<<8|int(b[1]), len(b)-2)
			tx, err := d.Decode(b[2 : 2+n])
			if err != nil {
				return
			}
			b = b[2+n:]
			if tx == nil {
				continue
			}
			for _, table := range tx.Tables {
				if len(table.Rows) > MaxRows || table.All && table.Rows != nil {
					t.Errorf("%d rows", len(table.Rows))
				}
			}
		}
	})
}

func TestCheckNamesTheRemedy(t *testing.T) {
	tests := []struct{ answer, want string }{
		{"150018 logical good 2", ""},
		{"180001 logical good 2", ""},
		{"130023 logical good 2", "older than 14"},
		{"150018 replica good 2", "ALTER SYSTEM SET wal_level = logical"},
		{"150018 logical none 0", "cachedpg setup --wal"},
		{"150018 logical other 2", "DROP PUBLICATION cachedpg"},
		{"150018 logical good 1", "cachedpg_ddl"},
		{"", "says"},
	}
	for _, tt := range tests {
		err := Check(tt.answer)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%q: got error %v, want %q", tt.answer, err, tt.want)
		}
	}
}

func TestRefusalsNameTheRemedy(t *testing.T) {
	tests := []struct{ code, message, want string }{
		{"53400", "all replication slots are in use", "raise max_replication_slots"},
		{"53300", "number of requested standby connections exceeds max_wal_senders (currently 10)", "raise max_wal_senders"},
		{"42501", "must be superuser or replication role to start walsender", "ALTER ROLE"},
		{"55000", "logical decoding requires wal_level >= logical", "wal_level = logical"},
		{"08P01", "unsupported startup parameter: replication", "a pooler does not replicate"},
	}
	for _, tt := range tests {
		err := refused(fmt.Errorf("connecting: %w", &pgconn.PgError{Code: tt.code, Message: tt.message}))
		var config *ConfigError
		if !errors.As(err, &config) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%s: got %v, want %q", tt.message, err, tt.want)
		}
	}
	other := &pgconn.PgError{Code: "57P01", Message: "terminating connection due to administrator command"}
	if err := refused(other); err != error(other) {
		t.Errorf("got %v", err)
	}
}
