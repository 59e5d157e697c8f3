package parser

import (
	"strconv"
	"strings"
	"time"
)

const hintPrefix = "cachedpg:"

// comment reads the hints of one comment, given without its delimiters. Other
// comments are nobody's business here.
func (l *lexer) comment(text string) {
	text = strings.TrimLeft(text, " \t\r\n")
	if strings.HasPrefix(text, hintPrefix) {
		l.hints.read(text[len(hintPrefix):])
	}
}

// read adds the hints of one comment. The first mistake is kept, and hints
// that contradict each other are one.
func (h *Hints) read(text string) {
	words := strings.Fields(text)
	if len(words) == 0 {
		h.fail("a hint comment without a hint")
	}
	for _, word := range words {
		name, value, given := strings.Cut(word, "=")
		switch {
		case name == "bypass" && !given:
			h.Bypass = true
		case name == "ttl" && given:
			d, err := time.ParseDuration(value)
			switch {
			case err != nil:
				h.fail("hint ttl: not a duration such as 30s")
			case d <= 0:
				h.fail("hint ttl: must be positive")
			case h.TTL != 0 && h.TTL != int64(d):
				h.fail("hint ttl: given twice with different values")
			default:
				h.TTL = int64(d)
			}
		case name == "bypass" || name == "ttl":
			h.fail("hint " + name + ": use bypass or ttl=30s")
		default:
			if len(name) > 20 {
				name = name[:20]
			}
			h.fail("unknown hint " + strconv.QuoteToASCII(name))
		}
	}
}

func (h *Hints) fail(message string) {
	if h.Err == "" {
		h.Err = "cachedpg: " + message
	}
}
