package core

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/psql"
)

// The corpus in testdata/judge is SQL as psql reads it. Every file has a
// database of its own and is run from its first line to its last, each
// statement judged. A comment right above a statement may say what is to come
// of it, which PostgreSQL cannot know:
//
//	-- expect: error 23503     PostgreSQL refuses it with this SQLSTATE, or one of several
//	-- expect: cached          the second answer is a hit
//	-- expect: bypass          neither answer has to do with the cache
//	-- expect: kept a b        results that read all of a, or of b, are hits afterwards
//	-- expect: rows a b        results that read other rows of a, or of b, by primary key are hits afterwards
//	-- expect: kept since 15 a the same, from this version of PostgreSQL on
//	-- run: since 15           from this version of PostgreSQL on
//	-- run: with hstore        if the server has the extension
//
// Without a word about it a statement has to succeed. :role_a and :role_b are
// names for roles that nobody else has.
const corpus = "testdata/judge"

func TestPostgresJudgesTheCorpus(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(corpus, "*.sql"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files in %s, %v", len(files), corpus, err)
	}
	var mu sync.Mutex // guards total
	var total tally
	t.Run("files", func(t *testing.T) {
		for _, file := range files {
			for _, autocommit := range []bool{false, true} {
				name := strings.TrimSuffix(filepath.Base(file), ".sql")
				if autocommit {
					name += "/autocommit"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					judging(t, pgtest.Database(t), "cache_statement", nil, func(j *judge) {
						j.rows, j.autocommit = true, autocommit
						j.file(file)
						t.Logf("%s: %v", file, j.tally)
						mu.Lock()
						defer mu.Unlock()
						total = total.plus(j.tally)
					})
				})
			}
		}
	})
	t.Logf("in all: %v", total)
	if total[nCached] == 0 || total[nWrites] == 0 || total[nKept] == 0 || total[nChangedRows] == 0 {
		t.Error("there was nothing to judge")
	}
}

// file runs one file of the corpus.
func (j *judge) file(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		j.Fatal(err)
	}
	s := psql.New(string(text))
	for _, name := range []string{"role_a", "role_b"} { // roles are the server's, not the database's
		s.Vars[name] = "judge_" + strings.ToLower(rand.Text()[:12])
	}
	for {
		st, ok := s.Next()
		if !ok {
			break
		}
		j.where = fmt.Sprintf("%s:%d", path, st.Line)
		if st.Command != "" {
			j.Fatalf("%s: %s: only psql understands this", j.where, st.Command)
		}
		if j.runnable(st.Notes) {
			j.step(st)
		} else {
			j.tally[nSkipped]++
		}
	}
	if status := j.c.inner.TxStatus(); status != 'I' {
		j.Errorf("%s: the file ends in transaction status %c", path, status)
	}
}

// runnable reports whether the server can run a statement.
func (j *judge) runnable(notes []string) bool {
	for _, note := range notes {
		words := strings.Fields(note)
		if words[0] != "run:" || len(words) != 3 {
			continue
		}
		var runnable bool
		var err error
		switch words[1] {
		case "since":
			err = j.watch.QueryRow(context.Background(), "SELECT current_setting('server_version_num')::int >= $1::int * 10000", pgx.QueryExecModeExec, words[2]).Scan(&runnable)
		case "with":
			err = j.watch.QueryRow(context.Background(), "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = $1)", pgx.QueryExecModeExec, words[2]).Scan(&runnable)
		default:
			j.Fatalf("%s: %q", j.where, note)
		}
		if err != nil {
			j.Fatalf("%s: %v", j.where, err)
		}
		if !runnable {
			return false
		}
	}
	return true
}

// step runs a statement and compares with what the file expects.
func (j *judge) step(st psql.Step) {
	want := ""
	for _, note := range st.Notes {
		if codes, ok := strings.CutPrefix(note, "expect: error "); ok {
			want = codes
		}
	}
	before := j.tally
	var err error
	if st.Data != nil {
		err = j.copyIn(st)
	} else {
		err = j.run(st.SQL)
	}
	if got := code(err); got != want && !slices.Contains(strings.Fields(want), got) || err != nil && got == "" {
		j.defect("got error %q (%v), want %q\nin: %s", got, err, want, st.SQL)
	}
	for _, note := range st.Notes {
		words := strings.Fields(strings.TrimPrefix(note, "expect: "))
		switch words[0] {
		case "run:", "error":
		case "cached":
			if j.tally[nCached] == before[nCached] {
				j.defect("not cached: %s", st.SQL)
			}
		case "bypass":
			if j.tally[nBypassed] == before[nBypassed] {
				j.defect("looked up in the cache: %s", st.SQL)
			}
		case "kept", "rows":
			if words[1] == "since" {
				if !j.runnable([]string{"run: since " + words[2]}) {
					continue
				}
				words = slices.Delete(words, 1, 3)
			}
			j.survives(words[0] == "rows", words[1:])
		default:
			j.Fatalf("%s: %q", j.where, note)
		}
	}
}

// survives: entries about the relations are still hits, by key only those whose
// rows are as they were.
func (j *judge) survives(key bool, relations []string) {
	found := make(map[string]bool)
	for _, e := range j.pool {
		if e.key != key || !slices.Contains(relations, e.relation) {
			continue
		}
		if !e.same {
			if !key {
				j.defect("the contents of %s have changed", e.relation)
			}
			continue
		}
		found[e.relation] = true
		if !e.hit {
			j.defect("invalidated: %s %v", e.sql, values(e.args))
		}
	}
	for _, name := range relations {
		if !found[name] {
			j.defect("nothing about %s was in the cache", name)
		}
	}
}
