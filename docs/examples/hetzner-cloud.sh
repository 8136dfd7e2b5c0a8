#!/bin/sh
# Moves a shared IP to this server in the Hetzner Cloud, where the network itself has to be told: a Floating IP, or an
# alias IP of a private network. An example for the hook become-owner; docs/hooks.md says more.
#
# It was not run against the cloud: what it asks of the API is tested against a server that stands in for that.
#
#   hooks:
#     become-owner: [/usr/local/bin/hetzner-cloud.sh, /etc/vip-agent.hcloud]
#     timeout: 30s
#
# The file that it is given is read by the shell, so nobody else may write it:
#
#   TOKEN_FILE=/etc/vip-agent.hcloud-token   # an API token of the project, with mode 0600
#   FLOATING_IP=4711                         # the Floating IP's id; or, for an alias IP,
#   NETWORK=1234                             # the private network's id
#   SERVER=42                                # this server's id; default: the metadata service knows it
#   STATUS='vip-agent status --json'         # default; add --config FILE if the agent is found by that
#
# Needs curl, jq and flock; for an alias IP, a project of at most 50 servers. It asks until the API shows the shared IP
# here. What ends it before that is the hook's timeout, or that this node no longer owns the shared IP.
set -eu

settings=${1:?name the file with the settings}
# shellcheck source=/dev/null
. "$settings"
vip=${VIP_AGENT_VIP:?run this as a hook of vip-agent}
: "${TOKEN_FILE:?it is missing in $settings}"
api=${API:-https://api.hetzner.cloud/v1}
metadata=${METADATA:-http://169.254.169.254/hetzner/v1/metadata}

# The body of the answer; of one that is an error, on standard error. The token goes in by standard input, for arguments
# are everybody's to read.
call() {
    method=$1
    path=$2
    shift 2
    answer=$(
        printf 'header = "Authorization: Bearer %s"\n' "$(cat "$TOKEN_FILE")" |
            curl --config - --silent --show-error --fail-with-body --max-time 5 --request "$method" \
                --header 'Content-Type: application/json' "$@" "$api$path"
    ) || {
        printf '%s %s: %s\n' "$method" "$path" "$(printf '%s' "$answer" | tr '\n' ' ')" >&2
        return 1
    }
    printf '%s\n' "$answer"
}

# Succeeds if it was here. Assigned to another server it is taken from that one.
floating_ip() {
    shown=$(call GET "/floating_ips/$FLOATING_IP") || return
    holder=$(printf '%s' "$shown" | jq --raw-output '.floating_ip.server // empty') || return
    [ "$holder" != "$SERVER" ] || return 0
    call POST "/floating_ips/$FLOATING_IP/actions/assign" --data "{\"server\": $SERVER}" >/dev/null
    return 1
}

# Succeeds if it was here and nowhere else. A server's alias IPs are replaced as a whole: off others first, then on here.
alias_ip() {
    servers=$(call GET '/servers?per_page=50') || return
    # A line for each list that has to change: the server's id, and the new list.
    changes=$(
        printf '%s' "$servers" |
            jq --raw-output --arg vip "$vip" --argjson network "$NETWORK" --argjson own "$SERVER" '
                [ .servers[] | .id as $id | .private_net[] | select(.network == $network)
                  | (.alias_ips | index($vip) != null) as $has
                  | if $id == $own and ($has | not) then { $id, ips: (.alias_ips + [$vip]) }
                    elif $id != $own and $has then { $id, ips: (.alias_ips - [$vip]) }
                    else empty end ]
                | sort_by(.id == $own)[] | "\(.id) \(.ips | tojson)"'
    ) || return
    [ -n "$changes" ] || return 0
    printf '%s\n' "$changes" | while read -r id ips; do
        call POST "/servers/$id/actions/change_alias_ips" \
            --data "{\"network\": $NETWORK, \"alias_ips\": $ips}" >/dev/null || break
    done
    return 1
}

# Succeeds once this node owns it for sure, fails if it does not: whoever has it now must not lose it to us. Its address is
# no sign of that, for the next owner has it too before it takes over.
is_ours() {
    while :; do
        # Where no agent answers that is said in the same way.
        # shellcheck disable=SC2086
        role=$(
            ${STATUS:-vip-agent status --json} | jq --raw-output --arg vip "$vip" '
                .error.kind // first(.vips[] | select(.ip == $vip) | .role) // "not configured"'
        ) || role=
        case $role in
            owner) return 0 ;;
            # It may be ours again at any moment, and no hook is run for that.
            unknown | taking-over | suspended | no-answer) sleep 1 ;;
            *)
                echo "$vip is not served here any more (${role:-there is no status})" >&2
                return 1
                ;;
        esac
    done
}

# Of several shared IPs one at a time: each changes the same list.
exec 9<"$settings"
flock 9

if [ -n "${FLOATING_IP:-}" ]; then
    move=floating_ip
else
    : "${NETWORK:?$settings names neither FLOATING_IP nor NETWORK}"
    move=alias_ip
fi
until [ -n "${SERVER:-}" ]; do
    SERVER=$(curl --silent --show-error --fail --max-time 2 "$metadata/instance-id") || sleep 1
done
# Before the first try too: by now others may have held the lock for long.
is_ours || exit 1
until "$move"; do
    sleep 1
    is_ours || exit 1
done
