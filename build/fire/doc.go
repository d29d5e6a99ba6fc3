// Command fire breaks things on purpose, and says what became of the promises.
//
// Each fault of the list is a scenario: it lays out a field of network namespaces (package field), puts
// a real server with the steady load on it (package load), injects the fault, heals it, and prints one
// line of JSON with what is always measured, a verdict and the criterion. In the end there is a table of
// promises: how often each was put to the test, the figure, and whether it was kept.
//
//	make fire                      all of it, at the counts of the promises: hours
//	FIRE='-share 0.2' make fire    a fifth of the counts, where that is more than with -quick
//	FIRE='-run F43 -soak 1h' make fire  the soak, for an hour
//	FIRE=-quick make fire          fewer faults and a smaller load: less than 10 minutes
//	FIRE=-ci make fire             the most telling faults: less than 3 minutes
//	FIRE='-run F11' make fire      one scenario; P4 would be all that are about a promise
//	FIRE=-clean make fire          takes away what a run left that was killed
//
// It needs Linux and root. Where that, a tool or a feature of the kernel is missing, it says so and ends
// with status 4: nothing was shown is not the same as nothing fell short, which is status 0.
//
// # How to add a scenario
//
// Write a file fNN_name.go with a variable of type scenario, and add it to the list in scenarios.go. Its
// run function
//
//   - makes a field with trial.ground; everything of it goes by itself in the end;
//   - starts a server and people with trial.steady, or a server alone with trial.server;
//   - calls Party.Mark, injects, heals, and calls Window.Measure. Those to whom the fault itself is done
//     are excused (Window.Excuse): figures are about the others;
//   - takes the figures into the result (trial.worst), puts those of its own into result.More, and says
//     with trial.expect what has to hold; what does not is a shortfall of the product;
//   - returns an error only if nothing was shown: the harness is at fault, or what it needs is missing
//     (field.ErrSkip). An error never counts as a pass;
//   - says with trial.promise what it found about a promise, with the count and a figure;
//   - ends with trial.leaveIdle, which has everybody leave and looks at what stays behind.
//
// Times that have to hold are put to trial.within, which does not judge them on a machine so busy that
// the harness itself is woken late.
//
// Counts and times are chosen with trial.of and trial.lasting, for quick and full runs, and with
// trial.least and trial.briefly where those of -ci are smaller still. All chance comes from trial.rand, whose seed is printed. On two processors, keep packets through impairers below 5,000 a
// second.
package main
