package guard

// still has it do nothing until goOn is called, as if the process were stopped.
func (r *Rotation) still() (goOn func()) {
	r.mu.Lock()
	return r.mu.Unlock
}

// pid is that of the connection that holds the locks. It may only be called while there is one, and it holds still.
func (r *Rotation) pid() uint32 { return r.holder.PID() }
