package stress

import (
	"flag"
	"time"
)

var (
	stressDuration = flag.Duration("stress.duration", 5*time.Second, "how long TestStress runs, its variants together; TestARandomHistory… takes a third of it besides")
	stressSeed     = flag.Uint64("stress.seed", 0, "seed of TestStress and of the first history; 0 takes one from the clock")
)

func newSeed() uint64 {
	if *stressSeed != 0 {
		return *stressSeed
	}
	return uint64(time.Now().UnixNano())
}

type question struct {
	text string
	args []any
}
