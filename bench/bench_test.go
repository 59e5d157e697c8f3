package bench

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

func TestMain(m *testing.M) {
	RunStampedeChild()
	os.Exit(m.Run())
}

// BenchmarkSystems runs every workload with every system. Numbers of different
// systems come from different moments: to compare them use cmd/report.
func BenchmarkSystems(b *testing.B) {
	redis := pgtest.Redis(b)
	for _, s := range Systems() {
		client, err := open(b.Context(), s, redis, func() (string, error) {
			return pgtest.Database(b), nil
		})
		if err != nil {
			b.Fatal(err)
		}
		for _, w := range Workloads() {
			if w.Relaxed || !w.For(s) {
				continue
			}
			b.Run(strings.ReplaceAll(w.Name, ", ", "-")+"/"+s.Name, func(b *testing.B) {
				b.ReportAllocs()
				if _, err := run(b.Context(), w, client, b.N); err != nil {
					b.Fatal(err)
				}
			})
		}
		if err := client.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestReportShowsEverySystem(t *testing.T) {
	redis := pgtest.Redis(t)
	var out strings.Builder
	o := Options{Rounds: 2, Slice: time.Millisecond, Transactions: 8, Stampede: StampedeOptions{Processes: 2, Goroutines: 20, Rounds: 2}}
	err := Report(t.Context(), &out, o, redis, func() (string, error) {
		return pgtest.Database(t), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range Workloads() {
		if !strings.Contains(out.String(), w.Name+"\n") {
			t.Errorf("no workload %q in the report", w.Name)
		}
	}
	for _, s := range Systems() {
		if !strings.Contains(out.String(), "  "+s.Name+" ") {
			t.Errorf("no system %q in the report", s.Name)
		}
	}
	for _, name := range []string{tripsName, tpccName, stampedeName} {
		if !strings.Contains(out.String(), name) {
			t.Errorf("no %q in the report", name)
		}
	}
	t.Log(out.String())
}

func TestQuantile(t *testing.T) {
	values := []float64{4, 1, 3, 2}
	tests := []struct{ q, want float64 }{{0, 1}, {0.5, 2.5}, {1, 4}, {0.25, 1.75}}
	for _, tt := range tests {
		if got := quantile(values, tt.q); got != tt.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", values, tt.q, got, tt.want)
		}
	}
}
