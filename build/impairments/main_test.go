package main

import "testing"

func TestInsert(t *testing.T) {
	got, err := insert("a\n"+begin+"old\n"+end+"z\n", "new\n")
	if want := "a\n" + begin + "\nnew\n\n" + end + "z\n"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, text := range []string{"", begin, end, end + begin} {
		if _, err := insert(text, "new\n"); err == nil {
			t.Errorf("put into %q", text)
		}
	}
}
