package cachedpg

import (
	"fmt"
	"strings"
)

// String returns the explanation for people, a few lines with a label each and
// a line break at the end. The key's settings are not listed.
func (x *Explanation) String() string {
	var out strings.Builder
	line := func(label string, texts ...string) {
		for _, text := range texts {
			fmt.Fprintf(&out, "%-13s%s\n", label, text)
			label = ""
		}
	}
	if x.Cacheable {
		line("cacheable", "yes, for at most "+shortDuration(x.TTL))
		line("by age only", x.ByAge...)
		line("key", x.Key.Text, x.Key.words())
	} else {
		line("cacheable", "no")
		line("reason", reasonWith(x.Reason, x.Detail)+": "+x.Because)
		line("remedy", x.Remedy)
	}
	line("reads", x.Reads...)
	line("invalidates", orNothing(x.Invalidates, x.Asks)...)
	if x.Asks {
		line("asks", x.Asking)
	}
	line("notes", x.Notes...)
	return out.String()
}

func reasonWith(reason, detail string) string {
	if detail != "" {
		reason += " (" + detail + ")"
	}
	return reason
}

// words are the parts beside the text.
func (k *KeyParts) words() string {
	parts := []string{
		"role " + k.Role,
		"search_path " + strings.Join(k.SearchPath, ","),
		"settings that change results",
		"exec mode " + k.ExecMode,
	}
	if k.Literals > 0 {
		parts = append(parts, count(k.Literals, "literal"))
	}
	switch n := len(k.Arguments); {
	case n > 0 && k.Arguments[0] == unknownType:
		parts = append(parts, count(n, "argument")+", not given")
	case n > 0:
		parts = append(parts, count(n, "argument")+" ("+strings.Join(k.Arguments, ", ")+")")
	}
	if k.Digest != "" {
		parts = append(parts, "digest "+k.Digest[:16]+"…")
	}
	return strings.Join(parts, "; ")
}

// count is a number of things: "1 literal", "2 literals".
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func orNothing(tags []string, more bool) []string {
	if len(tags) == 0 && !more {
		return []string{"nothing"}
	}
	return tags
}

// shortDuration leaves out what is zero at the end of a duration: 1h for 1h0m0s.
func shortDuration(text string) string {
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
