package outbox

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/pgerr"
	"github.com/cachedpg/cachedpg/store"
)

// answering is a connection that gives answers in turn, the last one again and again.
type answering struct {
	backend.Conn
	answers   []string
	err       error
	questions []string
}

func (a *answering) Ask(_ context.Context, sql string) (answer string, err error) {
	a.questions = append(a.questions, sql)
	if len(a.answers) > 0 {
		answer = a.answers[0]
		a.answers = a.answers[min(1, len(a.answers)-1):]
	}
	return answer, a.err
}

func (a *answering) Closed() bool { return false }

func (a *answering) Close() error { return nil }

func TestWhatARelayAnswers(t *testing.T) {
	writer, tags := store.NewTransactionWriter(9), []store.Tag{{Kind: store.TagTable, Relation: 7}}
	for _, tt := range []struct {
		name    string
		answers []string
		err     error
		marked  bool
		problem string // of Stats
		silent  bool   // the next one does not ask
	}{
		{name: "marked", answers: []string{"3", "", "true"}, marked: true},
		{name: "refused", answers: []string{"3", "false"}, problem: "has changed since"},
		{name: "nobody is there", answers: []string{""}, problem: "no relay is there", silent: true},
		{name: "nobody answers", answers: []string{"3", ""}, problem: "no relay answered in time", silent: true},
		{name: "no table", err: &pgconn.PgError{Code: pgerr.UndefinedTable}, problem: "run: cachedpg setup", silent: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, in := new(Outbox), &answering{answers: tt.answers, err: tt.err}
			if got := o.Ask(t.Context(), guard.Over(in), writer, tags, 1); got != tt.marked {
				t.Errorf("got %t", got)
			}
			s := o.Stats()
			if (s.Marked == 1) != tt.marked || !strings.Contains(s.Problem, tt.problem) || (s.Problem == "") != (tt.problem == "") {
				t.Errorf("got %+v", s)
			}
			asked := len(in.questions)
			o.Ask(t.Context(), guard.Over(in), writer, tags, 1)
			if got := len(in.questions) == asked; got != tt.silent {
				t.Errorf("silent: got %t", got)
			}
		})
	}
}

func TestNobodyIsAskedWhereARelayCannotMark(t *testing.T) {
	in := new(answering)
	for _, w := range []store.WriterID{store.NewWriter(), {}} {
		if new(Outbox).Ask(t.Context(), guard.Over(in), w, nil, 1) {
			t.Errorf("%v: a relay has marked for a writer that is no transaction", w)
		}
	}
	if new(Outbox).Ask(t.Context(), guard.Over(in), store.NewTransactionWriter(9), nil, 0) {
		t.Error("a relay has marked for a writer without a catalog")
	}
	if len(in.questions) > 0 {
		t.Errorf("got questions %q", in.questions)
	}
}

// A statement that fails together with its event may have failed by itself.
func TestTheErrorOfAStatementIsTheEventsOnlyIfTheRoleMayNotPost(t *testing.T) {
	missing := &pgconn.PgError{Code: pgerr.UndefinedTable}
	for _, tt := range []struct {
		name, may string
		cause     error
		explained bool
	}{
		{"the event's", "false", missing, true},
		{"its own", "true", missing, false},
		{"of another kind", "false", &pgconn.PgError{Code: "23505"}, false},
		{"none of PostgreSQL's", "false", errors.New("broken"), false},
	} {
		err := ExplainWith(t.Context(), &answering{answers: []string{tt.may}}, tt.cause)
		if !errors.Is(err, tt.cause) || strings.Contains(err.Error(), "cachedpg setup") != tt.explained {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}
