package backend

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// answers are what PostgreSQL sends.
func answers(messages ...pgproto3.BackendMessage) (b []byte) {
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			panic(err)
		}
	}
	return b
}

// inPieces reads so many bytes at a time.
type inPieces struct {
	r io.Reader
	n int
}

func (p inPieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(p.n, len(b))]) }

// Wherever what PostgreSQL sends is cut, pgx gets its part of it, and the rider the other.
func TestARiderKeepsItsAnswer(t *testing.T) {
	notice := &pgproto3.NoticeResponse{Severity: "NOTICE", Message: "a notice"}
	status := &pgproto3.ParameterStatus{Name: "application_name", Value: "x"}
	row := &pgproto3.DataRow{Values: [][]byte{[]byte("a row"), nil}}
	done := &pgproto3.CommandComplete{CommandTag: []byte("UPDATE 1")}
	failed := &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "23505", Message: "a key"}
	fatal := &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01", Message: "the end"}
	ready := &pgproto3.ReadyForQuery{TxStatus: 'T'}
	parsed, bound := &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}
	savepoint, released := &pgproto3.CommandComplete{CommandTag: []byte("SAVEPOINT")}, &pgproto3.CommandComplete{CommandTag: []byte("RELEASE")}
	answer := &pgproto3.DataRow{Values: [][]byte{[]byte("735 on f")}}
	for name, tc := range map[string]struct {
		theirs []pgproto3.BackendMessage // of pgx, before the question
		others []pgproto3.BackendMessage // among those of the question, and after them
		ours   []pgproto3.BackendMessage
		want   string
	}{
		"an answer": {[]pgproto3.BackendMessage{status, bound, row, row, notice, done}, []pgproto3.BackendMessage{notice, status, ready},
			[]pgproto3.BackendMessage{parsed, bound, savepoint, parsed, bound, answer, done, parsed, bound, released}, "735 on f"},
		"an error of the statement": {[]pgproto3.BackendMessage{bound, row, failed}, []pgproto3.BackendMessage{notice, ready}, nil, ""},
		"an error of the question": {[]pgproto3.BackendMessage{bound, done}, []pgproto3.BackendMessage{ready},
			[]pgproto3.BackendMessage{parsed, bound, savepoint, failed}, "23505"},
		"the connection's end": {[]pgproto3.BackendMessage{bound, done}, []pgproto3.BackendMessage{fatal}, []pgproto3.BackendMessage{parsed, bound}, ""},
	} {
		for n := 1; n < 40; n++ {
			var stream []byte
			stream = append(stream, answers(tc.theirs...)...)
			for i := 0; i < max(len(tc.others), len(tc.ours)); i++ {
				if i < len(tc.ours) {
					stream = append(stream, answers(tc.ours[i])...)
				}
				if i < len(tc.others)-1 {
					stream = append(stream, answers(tc.others[i])...)
				}
			}
			stream = append(stream, answers(tc.others[len(tc.others)-1])...)
			after := answers(notice, row, done, ready) // of another statement, with which nothing travels
			var sent bytes.Buffer
			x := &rider{r: inPieces{bytes.NewReader(append(stream, after...)), n}, w: &sent}
			if !x.carry([]byte("question")) {
				t.Fatal("it takes no question")
			}
			prepare := message(&pgproto3.Parse{Query: "UPDATE"}, &pgproto3.Describe{ObjectType: 'S'}, &pgproto3.Sync{})
			execute := message(&pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{})
			for _, b := range [][]byte{prepare, append(bytes.Clone(execute), syncMessage...)} {
				if got, err := x.Write(b); got != len(b) || err != nil {
					t.Fatalf("%d of %d bytes were written, %v", got, len(b), err)
				}
			}
			if want := string(prepare) + string(execute) + "question" + string(syncMessage); sent.String() != want {
				t.Errorf("%q was sent, want %q", sent.String(), want)
			}
			got, err := io.ReadAll(x)
			if name == "the connection's end" { // pgx is told, and nothing comes after it
				if !bytes.Contains(got, answers(fatal)) {
					t.Fatalf("%s, by %d: pgx gets %q", name, n, got)
				}
				continue
			}
			if want := append(append(answers(tc.theirs...), answers(tc.others...)...), after...); !bytes.Equal(got, want) || err != nil {
				t.Fatalf("%s, by %d: pgx gets\n%q, %v, want\n%q", name, n, got, err, want)
			}
			heard := x.take()
			said := heard.Value
			if heard.Refused != nil {
				said = heard.Refused.Code
			}
			if said != tc.want || heard.OK != (tc.want != "") {
				t.Errorf("%s, by %d: heard %+v, want %q", name, n, heard, tc.want)
			}
		}
	}
}

// With what is not one execution nothing travels.
func TestARiderWaitsForAnExecution(t *testing.T) {
	var bind, execute, sync pgproto3.FrontendMessage = &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}
	for i, b := range [][]byte{
		nil, syncMessage,
		message(&pgproto3.Query{String: "UPDATE users SET name = 'x'"}),
		message(bind, execute),
		message(bind, execute, bind, execute, sync),
		message(bind, execute, sync, bind, execute, sync),
		message(&pgproto3.Close{ObjectType: 'S'}, sync),
		message(bind, execute, sync)[:10],
		message(&pgproto3.CopyData{Data: []byte("x")}, execute, sync),
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if isExecution(b) {
				t.Errorf("%q is an execution", b)
			}
		})
	}
	if !isExecution(message(bind, execute, sync)) {
		t.Error("an execution is none")
	}
}
