package core

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/psql"
)

// PostgreSQL's own regression tests, whose sources are not ours to ship, are the
// second corpus. They make roles, so the server had better be a private one:
//
//	CACHEDPG_PG_REGRESS=postgresql-15.8/src/test/regress go test -run Regression -v -timeout 2h .
//
// CACHEDPG_PG_REGRESS_ONLY=join,merge runs only some of the files.
const (
	regressVariable     = "CACHEDPG_PG_REGRESS"
	regressOnlyVariable = "CACHEDPG_PG_REGRESS_ONLY"
)

// notJudged are files about psql, about directories of the server, and about
// what other sessions see and when.
var notJudged = []string{"psql", "psql_crosstab", "psql_pipeline", "tablespace", "stats", "test_setup", "regex.linux.utf8"}

func TestPostgresJudgesItsOwnRegressionTests(t *testing.T) {
	t.Parallel()
	dir := os.Getenv(regressVariable)
	if dir == "" {
		t.Skipf("%s is not set: it is the path of src/test/regress in the sources of PostgreSQL", regressVariable)
	}
	pgtest.DSN(t)
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	files := schedule(t, dir)
	if only := os.Getenv(regressOnlyVariable); only != "" {
		files = strings.Split(only, ",")
	}
	var total tally
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			database := pgtest.Database(t)
			prepare(t, database, dir)
			judging(t, harness.WithKey(database, "statement_timeout", "20000"), "exec", nil, func(j *judge) {
				j.keep, j.rows, j.newest, j.unordered = 40, true, 12, true
				j.regress(dir, file)
				t.Logf("%s: %v", file, j.tally)
				total = total.plus(j.tally)
			})
		})
	}
	t.Logf("in all: %v", total)
}

// schedule is the order in which PostgreSQL's own test driver runs the files.
func schedule(t *testing.T, dir string) (files []string) {
	text, err := os.ReadFile(filepath.Join(dir, "parallel_schedule"))
	if err != nil {
		t.Fatalf("%s: %v", regressVariable, err)
	}
	for line := range strings.Lines(string(text)) {
		if names, ok := strings.CutPrefix(strings.TrimSpace(line), "test:"); ok {
			for _, name := range strings.Fields(names) {
				if !slices.Contains(notJudged, name) {
					files = append(files, name)
				}
			}
		}
	}
	return files
}

// prepare makes the tables that most files read.
func prepare(t *testing.T, database, dir string) {
	conn := pgtest.Connect(t, database).PgConn()
	for _, file := range []string{"test_setup", "create_index"} {
		r := openRegression(t, dir, file)
		for {
			st, ok := r.Next()
			if !ok {
				break
			}
			if st.Command != "" && !r.sends(st.Command) {
				r.meta(st)
			} else if st.Command == "" { // some need what is compiled beside the sources, and are refused
				_ = conn.Exec(context.Background(), st.SQL).Close()
			}
		}
	}
}

// regression is one file while it runs.
type regression struct {
	*psql.Script
	j       *judge
	skips   []bool // of the \if around: whether it is skipped
	ignored map[string]int
}

func openRegression(t testing.TB, dir, file string) *regression {
	path := filepath.Join(dir, "sql", file+".sql")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &regression{Script: psql.New(string(text)), ignored: make(map[string]int)}
	for name, value := range map[string]string{"PG_ABS_SRCDIR": dir, "PG_ABS_BUILDDIR": t.TempDir(), "PG_LIBDIR": "/nonexistent", "PG_DLSUFFIX": ".so"} {
		r.Vars["env "+name] = value
	}
	return r
}

// regress runs one file.
func (j *judge) regress(dir, file string) {
	r := openRegression(j, dir, file)
	r.j = j
	for {
		st, ok := r.Next()
		if !ok || st.Command == `\quit` || st.Command == `\q` {
			break
		}
		j.where = fmt.Sprintf("%s.sql:%d", file, st.Line)
		if st.Command != "" && !r.sends(st.Command) {
			r.meta(st)
			continue
		}
		switch {
		case r.skipped() || st.SQL == "":
		case st.Command != "":
			r.meta(st)
		case st.Data != nil:
			_ = j.copyIn(st)
		case psql.CopyFromStdin.MatchString(psql.WithoutComments(st.SQL)):
			j.tally[nSkipped]++ // refused, and without data
		default:
			_ = j.run(st.SQL)
		}
		if j.c.inner.Closed() || j.other.inner.Closed() {
			j.Errorf("%s: the connection is lost after %s", j.where, st.SQL)
			return
		}
	}
	if j.c.inner.TxStatus() != 'I' {
		_, _ = j.transcript(spoken{j.c}, "ROLLBACK", nil)
	}
	j.forgetPrepared()
	if len(r.ignored) > 0 {
		j.Logf("%s: commands of psql that are not followed: %v", file, r.ignored)
	}
}

// forgetPrepared ends the prepared transactions that a file has left, which
// would keep its database.
func (j *judge) forgetPrepared() {
	const left = "SELECT 'ROLLBACK PREPARED ' || pg_catalog.quote_literal(gid) FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()"
	for _, row := range j.ask(j.other, left) {
		ctx, cancel := j.context()
		defer cancel()
		if _, err := j.other.inner.ExecContext(ctx, row[0].(string), nil); err != nil {
			j.Errorf("%s: %v", j.where, err)
		}
	}
}

func (r *regression) sends(command string) bool {
	return slices.Contains([]string{`\g`, `\gx`, `\gset`, `\gexec`, `\crosstabview`}, psql.FirstWord(command))
}

func (r *regression) skipped() bool { return slices.Contains(r.skips, true) }

var trueWords = regexp.MustCompile(`(?i)^(t|tr|tru|true|on|1|y|ye|yes)$`)

// meta follows psql's own commands as far as statements depend on them.
func (r *regression) meta(st psql.Step) {
	j := r.j
	words := strings.Fields(st.Command)
	condition := func() bool {
		text := strings.Join(words[1:], " ")
		var b strings.Builder
		if n := r.Variable(&b, text); n > 0 {
			text = b.String() + text[n:]
		}
		return trueWords.MatchString(text)
	}
	last := len(r.skips) - 1
	switch words[0] {
	case `\if`:
		r.skips = append(r.skips, !condition())
		return
	case `\elif`:
		r.skips[last] = !r.skips[last] || !condition()
		return
	case `\else`:
		r.skips[last] = !r.skips[last]
		return
	case `\endif`:
		r.skips = r.skips[:last]
		return
	}
	if r.skipped() {
		return
	}
	switch words[0] {
	case `\set`:
		if len(words) > 1 {
			r.Vars[words[1]] = r.value(strings.Join(words[2:], " "))
		}
	case `\getenv`:
		if value, ok := r.Vars["env "+words[len(words)-1]]; ok {
			r.Vars[words[1]] = value
		}
	case `\c`, `\connect`:
		r.reconnect(words[1:])
	case `\g`, `\gx`, `\crosstabview`:
		_ = j.run(st.SQL)
	case `\gset`:
		_ = j.run(st.SQL)
		if j.c.inner.TxStatus() == 'E' {
			return
		}
		ctx, cancel := j.context()
		defer cancel()
		names, rows, err := plain(ctx, j.c, st.SQL)
		if err != nil || len(rows) != 1 {
			return
		}
		for i, name := range names {
			if len(words) > 1 {
				name = words[1] + name
			}
			if rows[0][i] != nil {
				r.Vars[name] = fmt.Sprint(rows[0][i])
			}
		}
	case `\gexec`:
		ctx, cancel := j.context()
		defer cancel()
		_, rows, err := plain(ctx, j.c, st.SQL)
		if err != nil {
			return
		}
		for _, row := range rows {
			for _, v := range row {
				if text, ok := v.(string); ok {
					_ = j.run(text)
				}
			}
		}
	default:
		r.ignored[words[0]]++
	}
}

// value is the argument of \set: words, quoted texts and variables in a row.
func (r *regression) value(text string) string {
	var b strings.Builder
	for text != "" {
		switch n := r.Variable(&b, text); {
		case n > 0:
			text = text[n:]
		case text[0] == ' ':
			text = text[1:]
		case text[0] == '\'':
			n := psql.QuotedLength(text, '\'', true)
			if unquoted, err := strconv.Unquote(`"` + strings.ReplaceAll(strings.Trim(text[:n], "'"), `"`, `\"`) + `"`); err == nil {
				b.WriteString(unquoted)
			} else {
				b.WriteString(strings.Trim(text[:n], "'"))
			}
			text = text[n:]
		default:
			b.WriteByte(text[0])
			text = text[1:]
		}
	}
	return b.String()
}

// reconnect gives the session the state of a new one, which psql would open.
func (r *regression) reconnect(words []string) {
	j := r.j
	if j.c.inner.TxStatus() != 'I' {
		_, _ = j.transcript(spoken{j.c}, "ROLLBACK", nil)
	}
	_ = j.run("RESET SESSION AUTHORIZATION")
	_ = j.run("DISCARD ALL")
	if len(words) > 1 && words[1] != "-" {
		_ = j.run(`SET SESSION AUTHORIZATION "` + strings.Trim(words[1], `"`) + `"`)
	}
}
