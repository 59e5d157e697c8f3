package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
)

const policed = harness.People + `
	CREATE TABLE audit_log (id int PRIMARY KEY, line text);
	CREATE TABLE "Weird.Name" (id int PRIMARY KEY);
	CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
	CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (10);
	INSERT INTO parts VALUES (1, 1);
	CREATE VIEW everybody AS SELECT * FROM users;`

// Nothing is cached but what is named, views and partitions of it included.
func TestAnAllowListOfTables(t *testing.T) {
	harness.ScenarioOnce(t, policed, func(f *harness.Fixture) {
		v := f.With(`cache_policy=default:off,users:cache-aside,parts:cache-aside,"Weird.Name":cache-aside`)
		v.Warm(harness.UserByID, 1)
		v.Warm("SELECT name FROM everybody WHERE id = 1")
		v.Warm("SELECT n FROM parts WHERE id = $1", 1)
		v.Warm("SELECT n FROM parts_1 WHERE id = $1", 1)
		v.Warm(`SELECT * FROM "Weird.Name"`)
		v.Bypass(keying.PolicyOff, "SELECT * FROM audit_log")
		v.Bypass(keying.PolicyOff, "SELECT * FROM users, audit_log")
		v.Exec("UPDATE users SET city = 'x' WHERE id = 1")
		v.Miss(harness.UserByID, 1)
		v.Exec("CREATE TABLE later (id int)")
		v.Bypass(keying.PolicyOff, "SELECT * FROM later")
		if idle := cachedpg.StatsOf(v.DB).Policies; len(idle) > 0 {
			f.Errorf("without effect: %q", idle)
		}
	})
}

// A pattern leaves out what is named, and who misspells a name is told.
func TestPatternsOfPoliciesAndNamesThatDoNotExist(t *testing.T) {
	harness.ScenarioOnce(t, policed, func(f *harness.Fixture) {
		v := f.With(`cache_policy=*:off,audit_*:cache-aside,Weird.Name:off,weird*:ttl:1s,WEIRD_TABLE:off,"usres":off,"AUDIT_LOG":off`)
		v.Warm("SELECT * FROM audit_log")
		v.Bypass(keying.PolicyOff, harness.UserByID, 1)
		idle := cachedpg.StatsOf(v.DB).Policies
		want := []string{"Weird.Name: there is no such relation", "weird*: there is no such relation", "WEIRD_TABLE: there is no such relation",
			`"usres": there is no such relation`, `"AUDIT_LOG": there is no such relation; the one that is there is written cache_statement.audit_log`}
		if len(idle) != len(want) {
			f.Fatalf("got %q", idle)
		}
		x, err := cachedpg.Explain(f.Ctx, v.DB, harness.UserByID, 1)
		if err != nil {
			f.Fatal(err)
		}
		for i := range want {
			if idle[i] != "cache_policy: "+want[i] {
				f.Errorf("got %s, want %s", idle[i], want[i])
			}
			if !slices.Contains(x.Notes, "A policy has no effect: cache_policy: "+want[i]+".") {
				f.Errorf("explain does not tell of %s: %q", want[i], x.Notes)
			}
		}
	})
}

func TestPoliciesThatCannotBeMeantAreRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"*:write-behind": "is for relations that are named", "default:write-behind": "is for relations that are named", "public.h*:write-behind": "is for relations that are named",
		"default:off,*:off": "named twice", "a:off,A:off": "named twice", `a:off,"a":off`: "named twice", "*:off,*.*:off": "named twice",
		`"a:off`: "want relation:strategy", `"a"b:off`: "quote", `a"b":off`: "want a relation", "a.b.c:off": "want a relation", ".a:off": "want a relation", "a.:off": "want a relation",
		`"":off`: "want a relation", "a b:off": "want a relation", "*:off:1s": "contradicts strategy", "*:ttl": "needs a ttl",
	} {
		if _, err := (&cachedpg.Driver{}).OpenConnector("host=h cache_policy='" + text + "' cache_store=redis://h"); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "cache_policy") {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
