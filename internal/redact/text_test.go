package redact

import "testing"

// What is shown of a statement still tells which it was.
func TestStatementsAreShownWithoutTheirValues(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"\x00DO\n$$ x $$": "DO …", "\x00DO$$ x $$": "DO …", "\x00 /* a */ -- b\n copy x": "copy …", "\x00x": "…", "\x00": "…", "\x00'select'": "…", "\x00/* a": "…",
		"select a from t order by 1":               "select a from t order by 1",
		"set app.x = y":                            "set app.x = …",
		"set local app.x to y, z; select $int":     "set local app.x to …; select $int",
		"alter role r set a.b to c":                "alter role r set a.b to …",
		"update t set a = b where c = $1":          "update t set a = b where c = $1",
		"select $int; update t set a = b":          "select $int; update t set a = b",
		"alter table t alter c set default $int":   "alter table t alter c set default $int",
		"select a1234, \"b\" from t order by 1234": "select a1234, \"b\" from t order by $int",
	} {
		if got := Text(text, true); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if got := Text("create role x password y", false); got != "create …" {
		t.Errorf("of what is no SQL %q is shown", got)
	}
}
