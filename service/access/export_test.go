package access

// Size returns how much is kept: groups, calls, tokens and things to expire.
func (s *Service) Size() [4]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := 0
	for _, g := range s.groups {
		calls += len(g.calls)
	}
	return [4]int{len(s.groups), calls, len(s.tokens), len(s.expiry)}
}
