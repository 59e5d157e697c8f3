package core

import "testing"

// Explain shows durations without what is nothing.
func TestDurationsAreShownShort(t *testing.T) {
	for text, want := range map[string]string{"1h0m0s": "1h", "10m0s": "10m", "1m30s": "1m30s", "30s": "30s", "1h1m0s": "1h1m", "20m0s": "20m", "500ms": "500ms", "0s": "0s"} {
		if got := ShortDuration(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
