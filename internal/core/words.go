package core

import (
	"fmt"
	"strings"
)

// Naming is a reason with the detail that led to it, if there is one.
func Naming(reason, detail string) string {
	if detail != "" {
		reason += " (" + detail + ")"
	}
	return reason
}

// Count is a number of things: "1 literal", "2 literals".
func Count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// ShortDuration leaves out what is zero at the end of a duration: 1h for 1h0m0s.
func ShortDuration(text string) string {
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
