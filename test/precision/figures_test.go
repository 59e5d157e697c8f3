package precision

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/cachedpg/cachedpg"
)

// figure counts the reads of one shape.
type figure struct {
	Application string   `json:"application"`
	Shape       string   `json:"shape"`
	Reads       int      `json:"reads"`
	Possible    int      `json:"possible"`
	Hits        int      `json:"hits"`
	Bypassed    int      `json:"bypassed"`       // without asking the cache
	Tags        []string `json:"tags,omitempty"` // that its results depend on, of rows and tables that are there
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

	Bypasses map[string]int `json:"bypasses"` // by the reason
}

// counted returns the figures in the order of the applications' shapes.
func (w *run) counted(ctx context.Context, operations int) (figures, error) {
	all := figures{Store: w.store, Writes: w.writes, Seed: w.seed, Operations: operations, Bypasses: w.passed,
		Total: figure{Application: "all", Shape: "total"}}
	for _, a := range w.apps {
		total := figure{Application: a.name, Shape: "total"}
		for _, s := range a.shapes {
			f := figure{Application: a.name, Shape: s.name}
			if counted := w.figures[a.name+s.name]; counted != nil {
				f = *counted
			}
			var err error
			if f.Tags, err = w.tags(ctx, s); err != nil {
				return figures{}, err
			}
			all.Shapes = append(all.Shapes, f)
			total.add(f)
		}
		all.Totals = append(all.Totals, total)
		all.Total.add(total)
	}
	return all, nil
}

// tags are those of a shape, without what only DDL changes and what counts where no row is found.
func (w *run) tags(ctx context.Context, s shape) (tags []string, err error) {
	x, err := cachedpg.Explain(ctx, w.db, s.text, s.args()...)
	if err != nil {
		return nil, err
	}
	for _, tag := range x.Reads {
		tag = strings.ReplaceAll(tag, "public.", "")
		ofValue := strings.Contains(tag, " = ") || strings.HasPrefix(tag, "table ") || strings.HasPrefix(tag, "rows there ")
		if ofValue && !strings.Contains(tag, ", if ") {
			tags = append(tags, tag)
		}
	}
	return tags, nil
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
	fmt.Fprintln(table, "application\tshape\treads\tpossible\thits\thits/possible\tdepends on")
	for _, s := range f.lines() {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%.3f\t%s\n", s.Application, s.Shape, s.Reads, s.Possible, s.Hits, s.ratio(), strings.Join(s.Tags, "; "))
	}
	table.Flush()
	if n := f.Total.Bypassed; n > 0 {
		fmt.Fprintf(&out, "%d reads went past the cache: %v\n", n, f.Bypasses)
	}
	return out.String()
}

func writeJSON(path string, all []figures) error {
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
