package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var rewrite = flag.Bool("rewrite", false, "write what the program says into testdata/explain.txt and docs/explain.md")

// shop returns the DSN of a database with the schema of the statements in docs/explain.md.
func shop(t *testing.T) string {
	t.Helper()
	schema, err := os.ReadFile("testdata/shop.sql")
	if err != nil {
		t.Fatal(err)
	}
	dsn := pgtest.Database(t)
	pgtest.Exec(t, dsn, string(schema))
	return dsn
}

// with returns dsn with a parameter set.
func with(t *testing.T, dsn, key, value string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(key, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// call runs the program.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// explains returns what the program says of a statement.
func explains(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := call(t, append([]string{"explain"}, args...)...)
	if code != exitOK || errs != "" {
		t.Fatalf("%q: exit code %d\n%s", args, code, errs)
	}
	return out
}

const (
	golden = "testdata/explain.txt"
	shown  = "../../docs/explain.md"
	prompt = "$ cachedpg explain '"
)

// TestThePagesExplanations runs the statements of testdata/explain.txt and
// compares what is said of them with that file, and the file with docs/explain.md.
// Review a change with
//
//	go test ./cmd/cachedpg -run Explanations -rewrite && git diff
func TestThePagesExplanations(t *testing.T) {
	t.Parallel()
	dsn := shop(t)
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := string(data)
	var blocks []string
	for line := range strings.Lines(want) {
		if sql, ok := strings.CutPrefix(line, prompt); ok {
			out := explains(t, "--dsn", dsn, strings.TrimSuffix(sql, "'\n"))
			blocks = append(blocks, line+strings.ReplaceAll(out, "role "+config.User+";", "role app;"))
		}
	}
	got := regexp.MustCompile("digest [0-9a-f]+…").ReplaceAllString(strings.Join(blocks, "\n"), "digest …")
	if len(blocks) < 10 {
		t.Errorf("%d statements in %s", len(blocks), golden)
	}
	page, err := os.ReadFile(shown)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(page), "```\n"+prompt)
	block, after, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatalf("%s has no block that begins with %q", shown, prompt)
	}
	if *rewrite {
		for file, text := range map[string]string{golden: got, shown: before + "```\n" + got + "```\n" + after} {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	if got != want {
		t.Errorf("%s:\ngot:\n%s\nwant:\n%s", golden, got, want)
	}
	if prompt+block != want {
		t.Errorf("%s shows something else than %s", shown, golden)
	}
}

func TestExplainAsJSON(t *testing.T) {
	t.Parallel()
	dsn := shop(t)
	for sql, want := range map[string]string{
		"SELECT * FROM customers WHERE id = 1 AND name <> 'x'": `true "" ["schema","rows public.customers(id)","row public.customers(id = $int)","new public.customers(id), if no row is found"] []`,
		"SELECT random()":                                `false "volatile-function" [] []`,
		"DELETE FROM messages":                           `false "not-a-read" [] ["table public.messages","rows public.messages(id)"]`,
		"CREATE TABLE t ()":                              `false "not-a-read" [] ["everything"]`,
		"BEGIN; INSERT INTO events VALUES (1); COMMIT":   `false "not-a-read" [] ["table public.events","row public.events(id = $int)"]`,
		"SELECT * FROM nowhere":                          `false "unknown-relation" [] []`,
		"FROM nonsense":                                  `false "unparsed" [] []`,
		"CALL nothing()":                                 `false "not-a-read" [] []`,
		"COPY orders (id, customer_id, total) TO STDOUT": `false "not-a-read" [] []`,
	} {
		out := explains(t, "--dsn", dsn, "--json", sql)
		var x map[string]any
		decoder := json.NewDecoder(strings.NewReader(out))
		if err := decoder.Decode(&x); err != nil || decoder.More() {
			t.Errorf("%s: not one JSON object: %v\n%s", sql, err, out)
			continue
		}
		for _, field := range []string{"cacheable", "reason", "detail", "because", "remedy", "kinds", "key", "reads", "invalidates", "asks", "ttl", "policy", "notes"} {
			if value, ok := x[field]; !ok || value == nil {
				t.Errorf("%s: field %s is %v", sql, field, value)
			}
		}
		var words []string
		for _, field := range []string{"cacheable", "reason", "reads", "invalidates"} {
			word, err := json.Marshal(x[field])
			if err != nil {
				t.Fatal(err)
			}
			words = append(words, string(word))
		}
		if got := strings.Join(words, " "); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", sql, got, want)
		}
	}
}

// Arguments name the row, and are shown as little as literals are.
func TestExplainWithArguments(t *testing.T) {
	t.Parallel()
	dsn := shop(t)
	const sql = "SELECT * FROM customers WHERE id = $1"
	for arg, want := range map[string]string{
		"4711":   "row public.customers(id = $1)",
		"-4711":  "row public.customers(id = $1)",
		"4711.5": "table public.customers\n",
		"today":  "clock-input",
	} {
		out := explains(t, "--dsn", dsn, sql, arg)
		if !strings.Contains(out, want) || strings.Contains(out, "4711") {
			t.Errorf("%s: got\n%s", arg, out)
		}
		if strings.Contains(out, "; digest ") || !strings.Contains(out, "digest is left out") {
			t.Errorf("%s: a digest of a text, where an application has another type:\n%s", arg, out)
		}
	}
	if code, out, errs := call(t, "explain", "--dsn", dsn, sql, "4711", "4712"); code != exitFailed || out != "" || strings.Contains(errs, "471") {
		t.Errorf("two arguments for one parameter: exit code %d, %s%s", code, out, errs)
	}
}

// What the command says does not depend on how it reaches the database, nor on
// a Redis.
func TestExplainByOtherWays(t *testing.T) {
	t.Parallel()
	dsn := shop(t)
	role := "reads_nothing_" + strings.ToLower(rand.Text()[:12])
	pgtest.Exec(t, dsn, "CREATE ROLE "+role)
	t.Cleanup(func() { pgtest.Exec(t, pgtest.DSN(t), "DROP ROLE "+role) })
	bouncer := pgtest.PgbouncerTo(t, dsn, "transaction")
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"SELECT * FROM customers WHERE id = $1", "SELECT name FROM spending", "DELETE FROM customers WHERE id = 3", "SELECT * FROM messages"} {
		want := explains(t, "--dsn", dsn, sql)
		for way, other := range map[string]string{
			"a Redis that is away":           with(t, dsn, "cache_store", "redis://:s3cret@127.0.0.1:1/0"),
			"a Redis, encrypted":             with(t, with(t, dsn, "cache_store", "redis://127.0.0.1:1/0"), "cache_encryption", "1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
			"pgbouncer":                      bouncer,
			"pgbouncer, without preparing":   with(t, bouncer, "default_query_exec_mode", "exec"),
			"a role that may read nothing":   with(t, dsn, "role", role),
			"an application_name of its own": with(t, dsn, "application_name", "me"),
		} {
			got := explains(t, "--dsn", other, sql)
			got = strings.NewReplacer("role "+role+";", "role "+config.User+";", "exec mode exec;", "exec mode cache_statement;").Replace(got)
			if digest.ReplaceAllString(got, "") != digest.ReplaceAllString(want, "") {
				t.Errorf("%s: %s:\ngot:\n%s\nwant:\n%s", way, sql, got, want)
			}
		}
	}
	if out := explains(t, "--dsn", with(t, dsn, "cache_store", "off"), "SELECT * FROM customers"); !strings.Contains(out, "cache-off") || !strings.Contains(out, "table public.customers") {
		t.Errorf("the cache is off:\n%s", out)
	}
	if out := explains(t, "--dsn", with(t, dsn, "cache_policy", "orders:off,customers:cache-aside:5m"), "SELECT * FROM spending"); !strings.Contains(out, "policy-off") {
		t.Errorf("a policy is off:\n%s", out)
	}
	if out := explains(t, "--dsn", with(t, dsn, "cache_policy", "customers:cache-aside:5m"), "SELECT * FROM spending"); !strings.Contains(out, "yes, for at most 5m\n") {
		t.Errorf("a policy with a time:\n%s", out)
	}
}

var digest = regexp.MustCompile("; digest [0-9a-f]+…")

func TestMisuse(t *testing.T) {
	t.Parallel()
	const sql, secret = "SELECT 1", "s3cret"
	tests := []struct {
		args []string
		code int
		want string // in what it prints
	}{
		{nil, exitUsage, "Usage: cachedpg COMMAND"},
		{[]string{"help"}, exitOK, "Usage: cachedpg COMMAND"},
		{[]string{"--help"}, exitOK, "explain"},
		{[]string{"explode"}, exitUsage, `no command "explode"`},
		{[]string{"explain", "-h"}, exitOK, "Usage: cachedpg explain"},
		{[]string{"explain", "--frobnicate", sql}, exitUsage, "not defined: -frobnicate"},
		{[]string{"explain", sql}, exitUsage, "no --dsn"},
		{[]string{"explain", "--dsn", "postgres://u:s3cret@127.0.0.1:1/d"}, exitUsage, "no statement"},
		{[]string{"explain", "--dsn", "postgres://u:s3cret@127.0.0.1:1/d", sql}, exitFailed, "connection refused"},
		{[]string{"explain", "--dsn", "host=127.0.0.1 port=1 user=u password=s3cret", sql}, exitFailed, "connection refused"},
		{[]string{"explain", "--dsn", "postgres://u:s3cret%zz@h/d", sql}, exitUsage, "percent"},
		{[]string{"explain", "--dsn", "postgres://u:a/s3cret@h/d", sql}, exitUsage, "--dsn"},
		{[]string{"explain", "--dsn", "postgres://u:x@h:s3cret/d", sql}, exitUsage, "invalid port"},
		{[]string{"explain", "--dsn", "host=h password=s3cret sslmode=never", sql}, exitUsage, "sslmode is invalid"},
		{[]string{"explain", "--dsn", "host=h password='s3cret", sql}, exitUsage, "keyword/value"},
		{[]string{"explain", "--dsn", "s3cret", sql}, exitUsage, "keyword/value"},
		{[]string{"explain", "--dsn", "postgres://u:s3cret@h/d?connect_timeout=s3cret", sql}, exitUsage, "connect_timeout"},
		{[]string{"explain", "--dsn", "postgres://u:s3cret@h/d?cache_size=1", sql}, exitUsage, "cache_size: unknown key"},
		{[]string{"explain", "--dsn", "postgres://u:s3cret@h/d?cache_ttl=never", sql}, exitUsage, "cache_ttl=never"},
		{[]string{"explain", "--dsn", "postgres://u@h/d?cache_store=redis://:s3cret%25@h", sql}, exitUsage, "cache_store"},
	}
	for _, test := range tests {
		code, out, errs := call(t, test.args...)
		if code != test.code || !strings.Contains(out+errs, test.want) || strings.Contains(out+errs, secret) {
			t.Errorf("%q: exit code %d, want %d and %q\n%s%s", test.args, code, test.code, test.want, out, errs)
		}
		if (out != "") == (code != exitOK) {
			t.Errorf("%q: exit code %d with output %q", test.args, code, out)
		}
		if errs != "" && !strings.HasPrefix(errs, "cachedpg: ") && !strings.HasPrefix(errs, "Usage: ") {
			t.Errorf("%q: an error begins with %q", test.args, errs)
		}
	}
}

// The DSN may come by the environment, where other users do not see it, and is
// not printed as a default.
func TestDSNFromTheEnvironment(t *testing.T) {
	t.Setenv("CACHEDPG_DSN", "postgres://u:s3cret@127.0.0.1:1/d")
	if code, _, errs := call(t, "explain", "SELECT 1"); code != exitFailed || !strings.Contains(errs, "connection refused") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	if _, out, _ := call(t, "explain", "-h"); strings.Contains(out, "s3cret") {
		t.Error(out)
	}
}

// The strategy needs a Redis, which the command leaves alone.
func TestExplainOfARelationThatWritesBehind(t *testing.T) {
	t.Parallel()
	dsn := with(t, shop(t), "cache_store", "redis://127.0.0.1:1/0")
	dsn = with(t, dsn, "cache_policy", "customers:write-behind")
	code, out, stderr := call(t, "explain", "--dsn", dsn, "UPDATE customers SET name = $2 WHERE id = $1")
	if code != exitOK || !strings.Contains(out, "row public.customers(id = $1)") || !strings.Contains(out, "customers has strategy write-behind") {
		t.Errorf("exit code %d\n%s%s", code, out, stderr)
	}
	if code, out, _ := call(t, "explain", "--dsn", dsn, "SELECT * FROM orders"); code != exitOK || strings.Contains(out, "write-behind") {
		t.Errorf("of another relation: exit code %d\n%s", code, out)
	}
}
