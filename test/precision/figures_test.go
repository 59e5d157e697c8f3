package precision

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// figure counts the reads of one shape.
type figure struct {
	Application string `json:"application"`
	Shape       string `json:"shape"`
	Reads       int    `json:"reads"`
	Possible    int    `json:"possible"`
	Hits        int    `json:"hits"`
	Bypassed    int    `json:"bypassed"`
}

func (f *figure) add(o figure) {
	f.Reads, f.Possible, f.Hits, f.Bypassed = f.Reads+o.Reads, f.Possible+o.Possible, f.Hits+o.Hits, f.Bypassed+o.Bypassed
}

// ratio is the share of the possible hits that the driver had.
func (f figure) ratio() float64 { return float64(f.Hits) / float64(max(f.Possible, 1)) }

// figures are those of one run.
type figures struct {
	Store      string   `json:"store"`
	Writes     int      `json:"writes"` // percent
	Seed       uint64   `json:"seed"`
	Operations int      `json:"operations"`
	Shapes     []figure `json:"shapes"`
	Totals     []figure `json:"totals"` // of each application
	Total      figure   `json:"total"`
}

// counted returns the figures in the order of the applications' shapes.
func (w *run) counted(operations int) figures {
	all := figures{Store: w.store, Writes: w.writes, Seed: w.seed, Operations: operations, Total: figure{Application: "all", Shape: "total"}}
	for _, a := range w.apps {
		total := figure{Application: a.name, Shape: "total"}
		for _, s := range a.shapes {
			f := figure{Application: a.name, Shape: s.name}
			if counted := w.figures[a.name+s.name]; counted != nil {
				f = *counted
			}
			all.Shapes = append(all.Shapes, f)
			total.add(f)
		}
		all.Totals = append(all.Totals, total)
		all.Total.add(total)
	}
	return all
}

// lines are the shapes and then the totals.
func (f figures) lines() []figure { return append(slices.Concat(f.Shapes, f.Totals), f.Total) }

// inconsistent says what cannot be; "" if nothing.
func (f figures) inconsistent() string {
	for _, s := range f.lines() {
		if s.Hits > s.Possible || s.Possible > s.Reads || s.Hits+s.Bypassed > s.Reads {
			return fmt.Sprintf("%+v", s)
		}
	}
	return ""
}

func (f figures) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %d %% writes, %d operations, seed %d\n", f.Store, f.Writes, f.Operations, f.Seed)
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "application\tshape\treads\tpossible\thits\thits/possible\t")
	for _, s := range f.lines() {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%.3f\t", s.Application, s.Shape, s.Reads, s.Possible, s.Hits, s.ratio())
		if s.Bypassed > 0 {
			fmt.Fprintf(table, "%d bypassed", s.Bypassed)
		}
		fmt.Fprintln(table)
	}
	table.Flush()
	return out.String()
}

func writeJSON(path string, all []figures) error {
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
