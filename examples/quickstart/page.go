package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// page is what the reader sees: sections of plain text and aligned columns. It
// also counts the expectations, so that none can fail unnoticed.
type page struct {
	w        io.Writer
	terminal bool // progress is drawn, not listed
	colour   bool
	sections int
	held     int
	failed   int
}

// newPage uses colour where a person looks at it and has not said NO_COLOR
// (https://no-color.org).
func newPage(w io.Writer) *page {
	p := &page{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	p.colour = p.terminal && os.Getenv("NO_COLOR") == ""
	return p
}

const (
	bold = "1"
	dim  = "2"
	red  = "31"
)

func (p *page) style(code, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// line prints one line; spaces that a column has left at its end are cut off.
func (p *page) line(format string, args ...any) {
	fmt.Fprintln(p.w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

func (p *page) title(text string) {
	if p.sections++; p.sections > 1 {
		p.line("")
		p.line("")
	}
	p.line("%s", p.style(bold, text))
	p.line("%s", p.style(dim, strings.Repeat("-", len(text))))
}

// columns prints the heads of columns.
func (p *page) columns(format string, args ...any) {
	p.line("%s", p.style(dim, fmt.Sprintf(format, args...)))
}

// text prints a paragraph.
func (p *page) text(words string) { p.indented("", words) }

// indented prints a paragraph, broken into lines of at most 78 characters.
func (p *page) indented(by, words string) {
	line := by
	for _, word := range strings.Fields(words) {
		switch {
		case line == by:
			line += word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= 78:
			line += " " + word
		default:
			p.line("%s", line)
			line = by + word
		}
	}
	p.line("%s", line)
}

// expect counts an expectation, and says so at once if it does not hold.
func (p *page) expect(ok bool, format string, args ...any) {
	if ok {
		p.held++
		return
	}
	p.failed++
	p.line("%s %s", p.style(red, "FAILED:"), fmt.Sprintf(format, args...))
}

var errWrongAnswer = errors.New("an expectation did not hold; see FAILED above")

// verdict is the last word, and the exit status.
func (p *page) verdict() error {
	p.line("")
	if p.failed > 0 {
		p.line("%d of %d expectations did not hold.", p.failed, p.failed+p.held)
		return errWrongAnswer
	}
	p.line("All %d expectations that this program checks about the above held.", p.held)
	return nil
}

// progress shows how far a step of the load is: a bar on a terminal, one line
// at its end elsewhere.
func (p *page) progress(label string, total int) *progress {
	b := &progress{page: p, label: label, total: total, begin: time.Now()}
	b.at(0)
	return b
}

type progress struct {
	page   *page
	label  string
	total  int
	begin  time.Time
	latest int // percent; a new one is drawn
}

const barWidth = 30

func (b *progress) at(n int) {
	percent := 100
	if b.total > 0 {
		percent = 100 * n / b.total
	}
	if !b.page.terminal || percent == b.latest && n > 0 {
		return
	}
	b.latest = percent
	full := barWidth * percent / 100
	fmt.Fprintf(b.page.w, "\r  %-24s [%s%s] %3d%%", b.label, strings.Repeat("#", full), strings.Repeat(".", barWidth-full), percent)
}

func (b *progress) done(what string) {
	if b.page.terminal {
		fmt.Fprint(b.page.w, "\r"+strings.Repeat(" ", 2+24+1+barWidth+2+5)+"\r")
	}
	b.page.line("  %-24s %17s %10s", b.label, what, seconds(time.Since(b.begin)))
}

// thousands writes 1050000 as 1,050,000.
func thousands[T int | int64 | uint64](n T) string {
	s := strconv.FormatUint(uint64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// short writes a duration with two or three digits and a unit.
func short(d time.Duration) string {
	switch {
	case d < 100*time.Microsecond:
		return fmt.Sprintf("%.1f µs", float64(d)/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", float64(d)/1e3)
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	}
	return seconds(d)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// times writes how many times longer a is than b.
func times(a, b time.Duration) string {
	if b <= 0 {
		return "-"
	}
	ratio := float64(a) / float64(b)
	if ratio < 10 {
		return fmt.Sprintf("%.1f x", ratio)
	}
	return thousands(int64(ratio+0.5)) + " x"
}

// money writes cents.
func money(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }
