package exampletest

import "testing"

func TestTheFirstDifferenceIsTold(t *testing.T) {
	tests := []struct {
		name, got, want string
		line            int
		difference      string
	}{
		{"equal", "a\nb\n", "a\nb\n", 0, ""},
		{"both empty", "", "", 0, ""},
		{"another line", "a\nx\nc\n", "a\nb\nc\n", 2, `got "x", want "b"`},
		{"a line too few", "a", "a\nb", 2, `got nothing, want "b"`},
		{"a line too many", "a\nb", "a", 2, `got "b", want nothing`},
		{"no end of the line", "a", "a\n", 2, `got nothing, want ""`},
		{"nothing printed", "", "a\n", 1, `got "", want "a"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if line, difference := firstDifference(tt.got, tt.want); line != tt.line || difference != tt.difference {
				t.Errorf("line %d: %s, want line %d: %s", line, difference, tt.line, tt.difference)
			}
		})
	}
}
