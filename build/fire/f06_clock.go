//go:build linux

package main

import "context"

// The clock of the machine is everybody's, so it is not set here; namespaces of time move the monotonic
// clocks alone. What virtual time can show, the tests below do.
var clockJumps = scenario{
	id: "F6", title: "the clock jumps (tests with virtual time alone)", promises: nil,
	criterion: "tokens, tickets, verified keys, ids of calls and certificates end when they should, and estimates outlive clocks that restart",
	run: func(ctx context.Context, t *trial) error {
		t.result.More["shown_by"] = "tests with virtual time; the clock of the machine was not set"
		const tests = "TestTokenExpiry|TestVerifiedKeyExpires|TestTicketLifetime|TestTokenExpires|TestTokenLifetime|TestExpiredTokensTakeNoRoom|" +
			"TestCallIDsExpire|TestOwnClockRestarts|TestReceiverClockRestarts|TestREMBExpires|TestTimesOfSendingAfterWeeks|TestSilenceOfAProcessThatWasStopped"
		return t.testsHold(ctx, "", "", "-run", "^("+tests+")$",
			"./service/auth", "./service/access", "./service/store", "./service/rtc", "./service/rtc/estimate", "./service/rtc/forward")
	},
}
