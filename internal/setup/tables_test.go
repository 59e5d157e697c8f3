package setup

import (
	"slices"
	"strings"
	"testing"
)

// What an administrator reads is what is executed.
func TestTheTextIsWhatIsExecuted(t *testing.T) {
	var commands []string
	for _, p := range pieces {
		if !strings.Contains(p.sql, "CREATE TABLE IF NOT EXISTS "+p.table+" (") {
			t.Errorf("what makes %s does not, or not again", p.table)
		}
		if p.last != "" && !strings.Contains(p.sql, p.last) {
			t.Errorf("the newest %s has no column %s", p.table, p.last)
		}
		if !strings.Contains(RemoveSQL(), "DROP TABLE IF EXISTS "+p.table+";\n") {
			t.Errorf("%s is not taken away", p.table)
		}
		commands = append(commands, strings.Split(p.sql, ";\n")...)
	}
	commands = append(append([]string{createSchema}, commands...), grantsTo([]string{`a "role"`})...)
	text := strings.ReplaceAll(TablesSQL(`a "role"`), "\n\n", "\n")
	if got := strings.Split(strings.TrimSuffix(text, ";\n"), ";\n"); !slices.Equal(got, commands) {
		t.Errorf("got %q, want %q", got, commands)
	}
	if n := strings.Count(TablesSQL(`a "role"`), `TO "a ""role"""`); n != 1+len(pieces) {
		t.Errorf("got %d grants", n)
	}
	if strings.Contains(TablesSQL(), "GRANT") {
		t.Error("a grant to nobody")
	}
}
