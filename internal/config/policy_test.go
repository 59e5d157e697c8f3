package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
)

func policiesOf(t *testing.T, text string) (Config, error) {
	t.Helper()
	_, c, err := Parse("host=h cache_policy='" + text + "' cache_store=redis://h")
	if err != nil {
		return c, err
	}
	return c.WithDefaults()
}

// Of the policies that name a relation the most specific counts, in whatever order.
func TestTheMostSpecificPolicyCounts(t *testing.T) {
	t.Parallel()
	const all = `default:off,public.*:ttl:1s,audit_*:cache-aside:2s,*_log:cache-aside:8s,audit_log:cache-aside:3s,public.audit_log:write-through:4s,` +
		`"Weird.Name":ttl:5s,"a*":ttl:6s,tenant_*.orders:ttl:7s,pg_catalog.pg_class:ttl:9s,"x:y,z":ttl:10s,"q""q":ttl:11s`
	tests := []struct {
		schema, name, policies string
		want                   string // Relation of the policy
	}{
		{"public", "audit_log", all, "public.audit_log"},
		{"other", "audit_log", all, "audit_log"},
		{"public", "audit_trail", all, "audit_*"},
		{"other", "audit_trail", all, "audit_*"},
		{"other", "event_log", all, "*_log"},
		{"public", "users", all, "public.*"},
		{"other", "users", all, "default"},
		{"public", "Weird.Name", all, `"Weird.Name"`},
		{"public", "weird.name", all, "public.*"},
		{"x", "a*", all, `"a*"`},
		{"x", "ab", all, "default"},
		{"tenant_7", "orders", all, "tenant_*.orders"},
		{"x", "x:y,z", all, `"x:y,z"`},
		{"x", `q"q`, all, `"q""q"`},
		{"public", "users", "*:off", "*"},
		{"public", "users", "Users:off", "Users"}, // as PostgreSQL folds it
		{"public", "Users", "Users:off", ""},
		{"public", "Users", "Users:off,*:ttl:1s", "*"},
		{"public", "users", "u*:off,*s:ttl:1s", "u*"}, // of two alike the first
		{"public", "users", "*s:off,u*:ttl:1s", "*s"},
		{"public", "users", "u*e*s:off", "u*e*s"},
		{"public", "uses", "u*ee*s:off", ""},
		{"public", "us", "us*s:off", ""},
		{"public", "default", `"default":off,default:cache-aside`, `"default"`},
	}
	for _, tt := range tests {
		for _, reversed := range []bool{false, true} {
			items := splitUnquoted(tt.policies, ',')
			if reversed && len(items) > 2 {
				slices.Reverse(items)
			}
			c, err := policiesOf(t, strings.Join(items, ","))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if p, _ := c.PolicyOf(nil, &catalog.Relation{Schema: tt.schema, Name: tt.name, Kind: 'r'}); p != nil {
				got = p.Relation
			}
			if got != tt.want {
				t.Errorf("%s.%s under %s: got %q, want %q", tt.schema, tt.name, tt.policies, got, tt.want)
			}
		}
	}
	system := &catalog.Relation{Schema: "pg_catalog", Name: "pg_class", Kind: 'r', System: true}
	for policies, want := range map[string]bool{"*:ttl:1s": false, "default:off": false, "pg_*:off": false, "pg_catalog.*:ttl:1s": true, "pg_class:ttl:1s": true} {
		c, err := policiesOf(t, policies)
		if err != nil {
			t.Fatal(err)
		}
		if p, _ := c.PolicyOf(nil, system); (p != nil) != want {
			t.Errorf("%s names a catalog of PostgreSQL: %t", policies, p != nil)
		}
	}
}
