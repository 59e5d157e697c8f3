package backend

import (
	"bytes"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// What pgx sends while it is guarded is read within a savepoint, and pgx gets the answers to its own messages alone.
func TestAGuardedStatementIsReadWithinASavepoint(t *testing.T) {
	parse, bind, sync := &pgproto3.Parse{Name: "a", Query: "UPDATE"}, &pgproto3.Bind{PreparedStatement: "a"}, &pgproto3.Sync{}
	columns, portal, execute := &pgproto3.Describe{ObjectType: 'S', Name: "a"}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}
	parsed, bound, noData, closed := &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, &pgproto3.NoData{}, &pgproto3.CloseComplete{}
	parameters, row := &pgproto3.ParameterDescription{}, &pgproto3.DataRow{Values: [][]byte{[]byte("a row")}}
	notice := &pgproto3.NoticeResponse{Severity: "NOTICE", Message: "a notice"}
	begun, ended, done := &pgproto3.CommandComplete{CommandTag: []byte("SAVEPOINT")}, &pgproto3.CommandComplete{CommandTag: []byte("RELEASE")}, &pgproto3.CommandComplete{CommandTag: []byte("UPDATE 1")}
	failed := &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "42703", Message: "a column"}
	ready := &pgproto3.ReadyForQuery{TxStatus: 'T'}
	type sent []pgproto3.FrontendMessage
	type got []pgproto3.BackendMessage
	for name, tc := range map[string]struct {
		read, run    sent
		answers, own got
		refused      bool
	}{
		"prepared": {sent{parse, columns}, sent{sync}, got{parsed, bound, begun, parsed, notice, parameters, noData, parsed, bound, ended, closed, ready},
			got{parsed, notice, parameters, noData, ready}, false},
		"executed": {sent{bind, portal}, sent{execute, sync}, got{parsed, bound, begun, bound, noData, parsed, notice, bound, ended, closed, row, done, ready},
			got{bound, noData, notice, row, done, ready}, false},
		"both": {sent{parse, bind, portal}, sent{execute, sync}, got{parsed, bound, begun, parsed, bound, noData, parsed, bound, ended, closed, row, row, done, ready},
			got{parsed, bound, noData, row, row, done, ready}, false},
		"refused": {sent{bind, portal}, sent{execute, sync}, got{parsed, bound, begun, failed, ready}, got{failed, ready}, true},
		"failed while it runs": {sent{bind, portal}, sent{execute, sync}, got{parsed, bound, begun, bound, noData, parsed, bound, ended, closed, failed, ready},
			got{bound, noData, failed, ready}, false},
		"something else": {sent{&pgproto3.Query{String: "UPDATE"}}, nil, got{done, ready}, got{done, ready}, false},
	} {
		for n := 1; n < 40; n++ {
			after := got{notice, parsed, bound, noData, row, done, ready} // of a statement that is not guarded
			var stream, want, out bytes.Buffer
			stream.Write(answers(tc.answers...))
			stream.Write(answers(after...))
			want.Write(answers(tc.own...))
			want.Write(answers(after...))
			x := &rider{r: inPieces{&stream, n}, w: &out, guard: guard{armed: true}}
			group := append(message(tc.read...), message(tc.run...)...)
			if wrote, err := x.Write(group); wrote != len(group) || err != nil {
				t.Fatalf("%s: %d of %d bytes were written, %v", name, wrote, len(group), err)
			}
			whole := group
			if tc.run != nil {
				whole = append(append(append(bytes.Clone(guardBegin), message(tc.read...)...), guardEnd...), message(tc.run...)...)
			}
			if !bytes.Equal(out.Bytes(), whole) {
				t.Fatalf("%s: sent %q, want %q", name, out.Bytes(), whole)
			}
			x.guard.armed = false
			heard, err := io.ReadAll(struct{ io.Reader }{x})
			if err != nil || !bytes.Equal(heard, want.Bytes()) {
				t.Fatalf("%s, %d bytes at a time: pgx got %q, %v; want %q", name, n, heard, err, want.Bytes())
			}
			if x.guard.failed != tc.refused {
				t.Errorf("%s: refused %v", name, x.guard.failed)
			}
		}
	}
}
