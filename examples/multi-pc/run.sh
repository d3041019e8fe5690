#!/usr/bin/env bash
# Plays the four machines of this directory on one: network namespaces joined by bridges, routers with NAT made of nftables,
# four daemons with the four files as they stand. It tells what happens as it happens, about half a minute.
#
#   sudo bash examples/multi-pc/run.sh          # VINE_BIN=/path/to/vine names another binary than the one that is built here
#
# It needs root, ip, ss, nft, ping and perl. Nothing outside its own namespaces (vine-demo-*) is touched, and they go with it.
set -uo pipefail
cd "$(dirname "$0")"

say() { printf '%s\n' "$*"; }
fail() { printf 'run.sh: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "network namespaces need root: sudo bash $0"
PATH=$PATH:/usr/sbin:/sbin
for tool in ip ss nft ping perl; do
  command -v $tool >/dev/null || fail "no $tool; on Debian: apt-get install iproute2 nftables iputils-ping perl-base"
done
if [ -z "${VINE_BIN:-}" ]; then
  target=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")
  for VINE_BIN in "$target/release/vine" "$target/debug/vine" "$(command -v vine)"; do [ -x "$VINE_BIN" ] && break; done
fi
[ -x "$VINE_BIN" ] || fail "no vine: cargo build --release -p vine-cli, or set VINE_BIN"

machines=(alpha beta gamma relay)
work=$(mktemp -d) pids=()
spaces=()
clean_up() {
  local pid space
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
  wait 2>/dev/null
  for space in "${spaces[@]}"; do ip netns del "vine-demo-$space" 2>/dev/null; done
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- the wires

inside() { local space=vine-demo-$1; shift; ip netns exec "$space" "$@"; }
space() {
  ip netns add "vine-demo-$1" || fail "the namespace vine-demo-$1 is there already; does this run twice? (ip netns del)"
  spaces+=("$1")
  ip -n "vine-demo-$1" link set lo up
}
switch() { space "$1"; ip -n "vine-demo-$1" link add br0 type bridge; ip -n "vine-demo-$1" link set br0 up; }
# cable FROM LINK TO LINK: joins two namespaces
cable() {
  ip link add "$2" netns "vine-demo-$1" type veth peer name "$4" netns "vine-demo-$3"
  ip -n "vine-demo-$1" link set dev "$2" up
  ip -n "vine-demo-$3" link set dev "$4" up
}
# plug MACHINE LINK ADDRESS SWITCH
plug() {
  cable "$1" "$2" "$4" "$1"
  ip -n "vine-demo-$4" link set dev "$1" master br0
  ip -n "vine-demo-$1" addr add "$3" dev "$2"
}
# router MACHINE PUBLIC_ADDRESS NETWORK [fully-random]: puts a machine behind a router with NAT, plugged into the internet
router() {
  local machine=$1 router=nat-$1 public=$2 network=$3 how=${4:-}
  space "$router"
  plug "$router" wan "$public/24" internet
  cable "$machine" eth0 "$router" lan
  ip -n "vine-demo-$router" addr add "$network.1/24" dev lan
  ip -n "vine-demo-$machine" addr add "$network.2/24" dev eth0
  ip -n "vine-demo-$machine" route add default via "$network.1"
  inside "$router" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
  inside "$router" nft -f - <<NFT || fail "no NAT: nft of this kernel does not know what it needs"
table ip nat { chain post { type nat hook postrouting priority 100; oifname "wan" masquerade $how; }; }
table ip filter {
  chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname "lan" accept; }
  chain input { type filter hook input priority 0; policy drop; ct state established,related accept; iifname "lan" accept; }
}
NFT
}
# The line drops silently, where packets enter the bridge: no machine gets an error.
cut_line() { inside line nft 'table netdev dark { chain c { type filter hook ingress devices = { alpha, beta } priority 0; drop; }; }'; }
restore_line() { inside line nft 'delete table netdev dark'; }

# --- the machines

config() { printf '%s/%s/vine.toml' "$work" "$1"; }
vine() { local machine=$1 what=$2; shift 2; inside "$machine" "$VINE_BIN" "$what" -c "$(config "$machine")" "$@"; }
address() { case $1 in alpha) echo 10.42.0.1 ;; beta) echo 10.42.1.1 ;; gamma) echo 10.42.2.1 ;; relay) echo 10.42.3.1 ;; esac; }
prepare() {
  local machine peer id edits=()
  for machine in "${machines[@]}"; do
    mkdir -m 700 "$work/$machine"
    "$VINE_BIN" identity init --path "$work/$machine/identity" >/dev/null || fail "no identity for $machine"
    id=$("$VINE_BIN" identity export-public --path "$work/$machine/identity")
    edits+=(-e "s/PEER_ID_OF_${machine^^}/$id/")
  done
  for machine in "${machines[@]}"; do
    sed "${edits[@]}" -e "s|/var/lib/vine|$work/$machine|" "$machine.toml" >"$(config "$machine")"
    chmod 600 "$(config "$machine")"
  done
}
# background LABEL MACHINE COMMAND...: its output goes to LABEL.log, its process id to $last
background() {
  local label=$1 machine=$2
  shift 2
  ip netns exec "vine-demo-$machine" "$@" >"$work/$label.log" 2>&1 </dev/null &
  last=$!
  pids+=("$last")
}
# until_true SECONDS WHAT COMMAND...
until_true() {
  local limit=$1 what=$2 end=$((SECONDS + $1)) machine
  shift 2
  while [ $SECONDS -le $end ]; do
    "$@" && return
    sleep 0.02
  done
  for machine in "${machines[@]}"; do say "--- $machine:"; tail -n 5 "$work/$machine.log"; vine "$machine" sessions; done >&2
  fail "not within $limit s: $what"
}
answers() { inside "$1" ping -q -c1 -W0.2 "$(address "$2")" >/dev/null 2>&1; }
class() { vine "$1" sessions 2>/dev/null | awk -v peer="$2" '$1 == peer { print $2 }'; }
is() { [ "$(class "$1" "$2")" = "$3" ] && [ "$(class "$2" "$1")" = "$3" ]; }
expect() { # MACHINE PEER CLASS SECONDS WORDS
  until_true "$4" "$1 and $2 talk $3" is "$1" "$2" "$3"
  printf '  %-6s - %-6s %s (%s)\n' "$1" "$2" "$3" "$5"
}
# longest_gap LOG SINCE: the longest time in ms between two answers of a ping, of which the later came after SINCE
longest_gap() {
  awk -F'[][]' -v since="$2" '/time=/ { if (last && $2 > since && $2 - last > gap) gap = $2 - last; last = $2 }
    END { printf "%.0f", 1000 * gap }' "$1"
}

# A TCP transfer at 2 MB/s: what comes goes to standard output.
receiver='$server = IO::Socket::INET->new(Listen => 1, LocalPort => 5201, ReuseAddr => 1) or die "listen: $!\n";
  $from = $server->accept; while ($n = sysread $from, $bytes, 65536) { print $bytes } defined $n or die "read: $!\n"'
sender='$to = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => 5201) or die "connect: $!\n";
  open $file, "<", $ARGV[1] or die "$ARGV[1]: $!\n";
  while (read $file, $bytes, 16384) { print $to $bytes or die "write: $!\n"; select undef, undef, undef, 0.008 }'
listens() { inside "$1" ss -Hltn sport = :5201 | grep -q 5201; }

# --- the story

switch internet
switch line
for machine in "${machines[@]}"; do space "$machine"; done
plug relay eth0 198.51.100.40/24 internet
plug alpha line0 192.0.2.11/24 line
plug beta line0 192.0.2.12/24 line
router alpha 198.51.100.1 10.11.0 fully-random
router beta 198.51.100.2 10.12.0
router gamma 198.51.100.3 10.13.0
prepare

say "Four machines. alpha and beta share a leased line; gamma is a laptop behind an ordinary router; relay has a public address."
say "alpha's router shows everyone another port, so that nobody can make a hole in it."
for machine in relay alpha beta gamma; do background "$machine" "$machine" "$VINE_BIN" up -c "$(config "$machine")"; done
for pair in "alpha beta" "gamma beta" "gamma alpha"; do
  # shellcheck disable=SC2086  # a pair is two words
  until_true 20 "$pair talk" answers $pair
done
say
say "Everyone talks to everyone:"
expect alpha beta direct 10 "over the line"
expect gamma beta signaling_then_direct 10 "relay told each where the other is; both called at once"
expect gamma alpha relay 10 "by relay, which cannot read what it carries"

say
say "A TCP transfer of 40 MB from alpha to beta begins, and a ping every 10 ms."
head -c 40M /dev/urandom >"$work/sent"
background received beta perl -MIO::Socket::INET -e "$receiver"
transfer=$last
until_true 5 "beta listens" listens beta
background sender alpha perl -MIO::Socket::INET -e "$sender" "$(address beta)" "$work/sent"
background ping alpha ping -D -n -i 0.01 "$(address beta)"
sleep 3
say "The line goes dark: nothing comes through, and nobody says so."
since=$(date +%s.%N)
cut_line
until_true 10 "alpha and beta talk by relay" is alpha beta relay
sleep 2
expect alpha beta relay 2 "by relay; the ping stood still for $(longest_gap "$work/ping.log" "$since") ms"

say "The line is back."
since=$(date +%s%N)
restore_line
until_true 10 "alpha and beta talk directly again" is alpha beta direct
printf '  %-6s - %-6s %s (after %d ms)\n' alpha beta direct $((($(date +%s%N) - since) / 1000000))
wait "$transfer" || fail "the transfer broke: $(cat "$work/sender.log")"
cmp "$work/sent" "$work/received.log" || fail "the transfer is not what was sent"
say "The transfer never noticed: every byte came, in order."
say
say "What alpha says of its sessions:"
vine alpha sessions
