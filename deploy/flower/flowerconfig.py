# SPDX-License-Identifier: Apache-2.0
"""Settings of Flower for operations: `bookdrop flower --conf deploy/flower/flowerconfig.py`.

Every option of Flower can stand here under its own name. Who may sign in does not: give it as a variable
(FLOWER_BASIC_AUTH, BOOKDROP_FLOWER_USERS_FILE), so that no password lies in a file that many can read.
"""

# Behind a proxy: reachable for it alone, and told by it who the client is. In a container the address is "0.0.0.0";
# below a path of the proxy, set url_prefix to that path.
address = "127.0.0.1"
port = 5555
xheaders = True

# What is kept in memory. Slips, Returns and their history are in the database; this is for the pages of Flower's own.
max_tasks = 20_000
max_workers = 500
purge_offline_workers = 24 * 3600

# Names first, arguments as an id, what came of it, and where.
tasks_columns = "name,uuid,args,state,result,received,runtime,worker"
natural_time = True

# For a screen on the wall start a second one with --read-only: nobody can change anything there.
# With RabbitMQ and its management plugin, broker_api lets the page Broker show the lengths of queues.
