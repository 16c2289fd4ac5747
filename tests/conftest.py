import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)  # tiny networks: threads cost more than they bring
