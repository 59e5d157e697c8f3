package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Options of Report.
type Options struct {
	Rounds int
	Slice  time.Duration // of each system in each round
	Only   func(workload string) bool

	// Transactions is how many of TPC-C each system does in each round.
	Transactions int

	Stampede StampedeOptions
}

// contender is a system opened for a run.
type contender struct {
	System
	client  Client
	n       int
	samples []Sample
}

// Report measures every workload with every system and prints a table. database
// makes an empty database and returns its DSN, a URL: every system has one of its own,
// because cachedpg has one store for each database that a process uses.
func Report(ctx context.Context, out io.Writer, o Options, redis string, database func() (dsn string, err error)) error {
	for _, relaxed := range []bool{false, true} {
		var workloads []Workload
		for _, w := range Workloads() {
			if w.Relaxed == relaxed && (o.Only == nil || o.Only(w.Name)) {
				workloads = append(workloads, w)
			}
		}
		own := database
		if relaxed {
			own = func() (string, error) {
				dsn, err := database()
				if err != nil {
					return "", err
				}
				return withSettings(dsn, "synchronous_commit=off")
			}
		}
		if err := compare(ctx, out, o, workloads, redis, own); err != nil {
			return err
		}
	}
	if o.Only == nil || o.Only(tripsName) {
		if err := Trips(ctx, out, redis, database); err != nil {
			return err
		}
	}
	if o.Only == nil || o.Only(tpccName) {
		if err := TPCC(ctx, out, o, redis, database); err != nil {
			return err
		}
	}
	if o.Only == nil || o.Only(stampedeName) {
		return Stampede(ctx, out, o.Stampede, redis, database)
	}
	return nil
}

// compare measures workloads, in turns of the systems that any of them is for.
func compare(ctx context.Context, out io.Writer, o Options, workloads []Workload, redis string, database func() (string, error)) (err error) {
	var contenders []*contender
	defer func() {
		for _, c := range contenders {
			err = errors.Join(err, c.client.Close())
		}
	}()
	for _, s := range Systems() {
		if !slices.ContainsFunc(workloads, func(w Workload) bool { return w.For(s) }) {
			continue
		}
		client, err := open(ctx, s, redis, database)
		if err != nil {
			return err
		}
		contenders = append(contenders, &contender{System: s, client: client})
	}
	for _, w := range workloads {
		var in []*contender
		for _, c := range contenders {
			if w.For(c.System) {
				in = append(in, c)
			}
		}
		if err := measure(ctx, w, in, o); err != nil {
			return err
		}
		printTable(out, w, in)
	}
	return nil
}

// open opens a system on a database of its own, checks and warms it.
func open(ctx context.Context, s System, redis string, database func() (string, error)) (Client, error) {
	dsn, err := database()
	if err != nil {
		return nil, err
	}
	if err := Load(ctx, dsn); err != nil {
		return nil, err
	}
	client, err := s.Open(Env{DSN: dsn, Redis: redis, Name: fmt.Sprintf("bench:%d", time.Now().UnixNano())})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	behind, err := openSQL("pgx", dsn)
	if err != nil {
		return nil, err
	}
	defer behind.Close()
	if err := errors.Join(check(ctx, s, client, behind), warm(ctx, client)); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

// measure fills the contenders' samples, one for each round.
func measure(ctx context.Context, w Workload, in []*contender, o Options) error {
	for _, c := range in {
		// The workload before may have changed what is cached.
		if err := warm(ctx, c.client); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		n, err := calibrate(ctx, w, c.client, o.Slice)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		c.n, c.samples = n, nil
	}
	for round := range o.Rounds {
		for i := range in {
			c := in[(i+round)%len(in)]
			s, err := run(ctx, w, c.client, c.n)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			c.samples = append(c.samples, s)
		}
	}
	return nil
}

func printTable(out io.Writer, w Workload, in []*contender) {
	base := in[slices.IndexFunc(in, func(c *contender) bool { return c.Name == w.Baseline })]
	fmt.Fprintf(out, "%s\n", w.Name)
	fmt.Fprintf(out, "  %-20s %12s %10s %21s %10s\n", "", "ns/op", "x "+base.Name, "(quartiles)", "allocs/op")
	for _, c := range in {
		ratios := make([]float64, len(c.samples))
		times := make([]float64, len(c.samples))
		allocs := make([]float64, len(c.samples))
		for i, s := range c.samples {
			ratios[i] = s.NsPerOp / base.samples[i].NsPerOp
			times[i], allocs[i] = s.NsPerOp, s.AllocsPerOp
		}
		spread := fmt.Sprintf("%.4f … %.4f", quantile(ratios, 0.25), quantile(ratios, 0.75))
		fmt.Fprintf(out, "  %-20s %12.0f %10.4f %21s %10.1f\n",
			c.Name, quantile(times, 0.5), quantile(ratios, 0.5), spread, quantile(allocs, 0.5))
	}
	fmt.Fprintln(out)
}

// quantile returns the value below which the share q of the values lies.
func quantile(values []float64, q float64) float64 {
	sorted := slices.SortedFunc(slices.Values(values), cmp.Compare[float64])
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}
